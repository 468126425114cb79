"""State and ledger whose every call ends with the run's deadline, whatever their server does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from ghostclean.app.deadline import Deadline
from ghostclean.app.parts import Parts
from ghostclean.app.ports import Ledger, State

_FOR_THE_END = 0.5  # seconds that the run's own record needs


class _Within:
    """Passes every call on, bounded; raises DeadlineExceeded when it is not back in time."""

    def __init__(self, part: object, deadline: Deadline) -> None:
        self._part = part
        self._deadline = deadline

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._bounded(found) if callable(found) else found

    def _bounded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def within(*args: Any, **options: Any) -> Any:
            return self._deadline.writing(lambda: call(*args, **options), reserve=_FOR_THE_END)

        return within


def within(parts: Parts, deadline: Deadline) -> Parts:
    """The same parts, with state and ledger bounded by the deadline."""
    return replace(
        parts,
        state=cast(State, _Within(parts.state, deadline)),
        ledger=cast(Ledger, _Within(parts.ledger, deadline)),
    )
