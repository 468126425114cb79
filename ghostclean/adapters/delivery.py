"""How a monitor is reached: one POST, bounded in time, and what is said when it does not arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ghostclean.errors import GhostcleanError

Send = Callable[[float], None]


class NotDelivered(GhostcleanError):
    """A monitor did not hear of the run; says which, never a URL (it may hold a token)."""


def post(what: str, url: str, seconds: float, **request: Any) -> None:
    import requests

    try:
        # The answer's body says nothing we need: it is not read, however long it is.
        with requests.post(url, timeout=seconds, allow_redirects=False, stream=True, **request) as answer:
            status = answer.status_code
    except requests.Timeout:
        raise NotDelivered(f"{what}: no answer within {seconds:.1f} s") from None
    except (requests.RequestException, ValueError) as error:
        raise NotDelivered(f"{what}: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise NotDelivered(f"{what}: HTTP {status}")
