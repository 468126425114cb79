"""The text of a `.env` file that says just these settings, however odd a password is."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

from ghostclean.errors import BadSettings

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+=,#~-]+")


def env_text(settings: Mapping[str, str]) -> str:
    """One line a setting; raises BadSettings for a value that such a file cannot carry."""
    from dotenv import dotenv_values

    text = "".join(f"{name}={_quoted(value)}\n" for name, value in settings.items())
    said = dotenv_values(stream=io.StringIO(text))
    wrong = [name for name, value in settings.items() if said.get(name) != value]
    if wrong:
        raise BadSettings(
            f"{', '.join(wrong)} cannot be written to a .env file as it is: nothing was written; "
            "set it in the environment of the schedule, or choose another password"
        )
    return text


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return value if _PLAIN.fullmatch(value) else f"'{escaped}'"
