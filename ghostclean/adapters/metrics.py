"""The figures of the runs as a Prometheus textfile."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ghostclean.adapters.delivery import NotDelivered, Send
from ghostclean.adapters.disk import disk_troubles
from ghostclean.app.ports import EndedRun, Trouble
from ghostclean.core.alerts import Origin, interrupted
from ghostclean.core.attention import Kind
from ghostclean.core.verdicts import Verdict

_PREFIXES = {"reconcile": "", "auto-manage": "auto_manage_"}  # of the names of their series
_OUTCOMES = ("SUCCESS", "SKIP", "FAIL")
_LAST_SUCCESS = "last_success_timestamp_seconds"


class MetricsFile:
    """A Prometheus textfile, replaced as a whole so that a scrape never reads half of it."""

    name = "metrics file"
    address = ""
    patience = 2.0

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()

    def rehearse(self) -> list[Trouble]:
        """What keeps a run from writing it; its folder must be there."""
        folder = self._path.absolute().parent
        return disk_troubles(folder) if folder.is_dir() else [Trouble(f"{folder} is no folder", "make it")]

    def started(self, run_id: str, origin: Origin) -> Send | None:
        del run_id, origin
        return None

    def ended(self, run: EndedRun) -> Send | None:
        """The figures of a counted run beside those of the other kind; a lost state leaves the last success there."""
        return None if interrupted(run.document) else partial(self._write, run)

    def _write(self, run: EndedRun, seconds: float) -> None:
        del seconds
        try:
            text = self._present()
            success = run.last_success.timestamp() if run.last_success else _known_success(text, run)
            handle, name = tempfile.mkstemp(prefix=".ghostclean-", dir=self._path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(exposition(run, success) + _of_the_other_kind(text, run))
                Path(name).chmod(0o644)  # the collector runs as somebody else
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise NotDelivered(f"metrics file: {error.strerror}") from None

    def _present(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def _known_success(text: str, run: EndedRun) -> float | None:
    ours = re.escape(f"ghostclean_{_PREFIXES[run.kind]}{_LAST_SUCCESS}{{ledger={_quoted(run.origin.ledger)},")
    found = re.search(rf"^{ours}.*}} ([0-9.]+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def _of_the_other_kind(text: str, run: EndedRun) -> str:
    """The lines that a run of the other kind of this ledger has written; both rewrite the list of attention."""
    managed, ours = f"ghostclean_{_PREFIXES['auto-manage']}", f"{{ledger={_quoted(run.origin.ledger)},"
    kept = [
        line
        for line in text.splitlines()
        if ((managed in line.partition("{")[0]) is not (run.kind == "auto-manage") or "ghostclean_attention" in line)
        and ("ghostclean_attention" not in line or not _knows_attention(run.document))
        and (line.startswith("#") or ours in line)
    ]
    return "".join(f"{line}\n" for line in kept)


def _knows_attention(document: Mapping[str, Any]) -> bool:
    """The list is in the state: a run that has lost it leaves what the file says."""
    return bool(document["error"] != "state_failed")


def exposition(run: EndedRun, last_success: float | None) -> str:
    """The figures of one run in the text exposition format.

    Ledger and account make every series unique, so that several files may lie in one folder.
    """
    lines: list[str] = []
    document, now = run.document, run.now.timestamp()
    whose = f"ledger={_quoted(run.origin.ledger)},account={_quoted(run.origin.account or 'unknown')}"

    def gauge(name: str, text: str, values: Sequence[tuple[str, float]]) -> None:
        lines.append(f"# HELP ghostclean_{name} {text}")
        lines.append(f"# TYPE ghostclean_{name} gauge")
        lines.extend(f"ghostclean_{name}{{{whose}{more}}} {_number(value)}" for more, value in values)

    prefix = _PREFIXES[run.kind]
    gauge(f"{prefix}last_run_timestamp_seconds", "When the last run ended.", [("", now)])
    if last_success is not None:
        gauge(f"{prefix}{_LAST_SUCCESS}", "When a run last succeeded.", [("", last_success)])
        age = max(0.0, now - last_success)
        gauge(f"{prefix}last_success_age_seconds", "Age of the last success at the last run.", [("", age)])
    gauge(f"{prefix}last_run_ok", "1 when the last run succeeded.", [("", float(bool(document["ok"])))])
    gauge(f"{prefix}last_run_duration_seconds", "How long the last run took.", [("", document["durationMs"] / 1000)])
    kinds = Counter(item["kind"] for item in document["attention"])
    if _knows_attention(document):
        # Every label, also at zero: a series that comes and goes cannot be alerted on.
        waiting = [(f',kind="{kind}"', float(kinds[kind])) for kind in sorted(Kind)]
        gauge("attention", "What needs a person, by kind.", waiting)
    if run.kind == "auto-manage":
        outcomes = [(f',outcome="{word}"', float(document["outcome"] == word)) for word in _OUTCOMES]
        gauge(f"{prefix}last_run_outcome", "1 for the outcome of the last run.", outcomes)
        gauge(f"{prefix}naked", "Positions without a stop that can fire.", [("", float(kinds[Kind.NAKED]))])
        for name in ("checked", "updated", "flattened"):
            gauge(f"{prefix}last_run_{name}", f"Trades {name} in the last run.", [("", float(document[name]))])
        return "\n".join(lines) + "\n"
    for name in ("checked", "closed", "synced", "backfilled", "held", "orphans", "failed"):
        gauge(f"last_run_{name}", f"Trades {name} in the last run.", [("", float(document[name]))])
    verdicts = Counter(str(row["verdict"]) for row in document["results"])
    counts = [(f',verdict="{verdict}"', float(verdicts[verdict])) for verdict in sorted(Verdict)]
    gauge("last_run_verdicts", "Trades by verdict in the last run.", counts)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A label's value as the format wants it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _number(value: float) -> str:
    """In full, to the millisecond: `%g` would round a time to its first six digits."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
