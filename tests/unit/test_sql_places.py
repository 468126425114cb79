"""A table has one name however its place is spelled, and no secret in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ghostclean.places import ledger_place
from ghostclean.scrub import scrub


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bot:S3CRET@localhost/db#trades",
        "postgres://127.0.0.1:5432/db#public.trades",
        "postgresql+psycopg://me@/db?host=/run/postgresql&sslpassword=S3CRET#trades",
    ],
)
def test_a_table_of_a_server_has_one_name(url: str) -> None:
    place = ledger_place(url)
    assert place.describe() == place.identity == "postgresql://localhost:5432/db#trades"
    assert "S3CRET" not in repr(place) + scrub(url)


def test_a_table_of_a_file_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bot.db").touch()
    (tmp_path / "link.db").symlink_to("bot.db")
    spelled = (f"sqlite:///{tmp_path}/bot.db#trades", "sqlite:///bot.db#Trades", "sqlite:link.db#TRADES")
    places = [ledger_place(text) for text in spelled]
    assert {place.describe() for place in places} == {f"sqlite:///{tmp_path}/bot.db#trades"}
    assert len({place.identity for place in places}) == 1


@pytest.mark.parametrize(
    "url", ["sqlite:////x/bot.db", "sqlite://x#t", "sqlite:#t", "postgresql://h/db", "mysql://h#t"]
)
def test_a_place_without_table_file_or_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must name a"):
        ledger_place(url)
