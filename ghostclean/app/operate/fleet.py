"""Several accounts, one command: whose files a folder holds, which may not stand together, which is worst."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ghostclean.counts import counted
from ghostclean.errors import BadSettings

ENDING = ".env"
# What needs a hand at once (a naked position, an unexpected failure), what a safety rule has stopped, what does not
# run at all until it is put right, what could not be read, what the next run goes on with, what was busy.
WORST_FIRST = (1, 5, 2, 4, 3, 6, 7)
_HEALTH = ("healthy", "stale", "needs you", "broken")


@dataclass(frozen=True, slots=True)
class Account:
    """One env file and what it says; `error` where it cannot be used.

    `kind` is paper, live or snapshot; `ledger` and `keys` are the same for the same ledger and the same
    keys, and say nothing else; `interval` is in seconds.
    """

    name: str
    path: str
    kind: str = "?"
    ledger: str = ""
    keys: str = ""
    interval: float = 300.0
    error: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRun:
    """What a command came to for one account.

    `word` is ok, its error or its health, `unwell` tells the worse of two runs with one exit code;
    `lines` are its changes and failures for a person, `document` is its JSON text where that was wanted.
    """

    name: str
    kind: str
    exit_code: int
    word: str
    said: str
    unwell: int = 0
    error: str | None = None
    detail: str | None = None
    lines: tuple[str, ...] = ()
    document: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Its entry in the fleet's document, without the command's own."""
        names = {"name": self.name, "account": self.kind, "exitCode": self.exit_code, "result": self.word}
        return {**names, "said": self.said, "error": self.error, "detail": self.detail}


def accounts_of(folder: str, only: Collection[str], look: Callable[[str], Account]) -> tuple[list[Account], list[str]]:
    """The accounts of the folder's env files, or those named, and what a person should know of them.

    Raises BadSettings where nothing may run: no such folder, no file, no such name, one ledger in two files.
    """
    every = [look(str(path)) for path in _files(folder)]
    _refuse_shared_ledger(every)
    wanted = {name.removesuffix(ENDING) for name in only}
    if unknown := sorted(wanted - {account.name for account in every}):
        there = ", ".join(account.name for account in every)
        raise BadSettings(f"{folder} has no {unknown[0]}{ENDING}, but {there:.200} (nothing was done)")
    chosen = [account for account in every if not wanted or account.name in wanted]
    return chosen, [*_shared_keys(chosen), *_live_among_paper(chosen)]


def _files(folder: str) -> list[Path]:
    place = Path(folder)
    try:
        found = sorted(path for path in place.iterdir() if path.name.endswith(ENDING) and path.name[0] != ".")
    except OSError as error:
        raise BadSettings(
            f"the folder {place.absolute()} cannot be read ({error.strerror}): nothing was done; "
            f"name the folder with one file NAME{ENDING} for each account"
        ) from None
    if not found:
        raise BadSettings(
            f"{place.absolute()} holds no *{ENDING}: nothing was done; put one file NAME{ENDING} there for each account"
        )
    return found


def _refuse_shared_ledger(accounts: Iterable[Account]) -> None:
    for one, other, *_ in _groups(accounts, lambda account: account.ledger):
        raise BadSettings(
            f"{one.name}{ENDING} and {other.name}{ENDING} name the same ledger: nothing was done, for neither may "
            "close what is the other's; give each its own, or remove one"
        )


def _shared_keys(accounts: Iterable[Account]) -> Iterable[str]:
    for sharing in _groups(accounts, lambda account: account.keys):
        names = ", ".join(account.name for account in sharing)
        yield f"{names} have the same keys: several ledgers on one account"


def _live_among_paper(accounts: Sequence[Account]) -> Iterable[str]:
    live = [account.name for account in accounts if account.kind == "live"]
    if live and len(live) < len(accounts):
        yield f"live among paper accounts: {', '.join(live)}"


def _groups(accounts: Iterable[Account], sign: Callable[[Account], str]) -> list[list[Account]]:
    """Those that share a sign."""
    found: dict[str, list[Account]] = {}
    for account in accounts:
        if sign(account):
            found.setdefault(sign(account), []).append(account)
    return [sharing for sharing in found.values() if len(sharing) > 1]


def unwell(document: Mapping[str, Any], warnings: Collection[str]) -> int:
    """How much a run with this document needs a person; only to compare."""
    health = document.get("health")
    return _HEALTH.index(health) if health in _HEALTH else len(warnings)


def severity(exit_code: int) -> int:
    """0 for success; the higher the worse."""
    if exit_code in WORST_FIRST:
        return len(WORST_FIRST) - WORST_FIRST.index(exit_code)
    return len(WORST_FIRST) + 1 if exit_code else 0


def worst_first(runs: Iterable[AccountRun]) -> list[AccountRun]:
    """By exit code, what is unwell within it, live before the rest, then by name."""
    return sorted(runs, key=lambda run: (-severity(run.exit_code), -run.unwell, run.kind != "live", run.name))


def failure(runs: Sequence[AccountRun]) -> str | None:
    """One line for the failed ones, the worst first; None when all is well."""
    failed = [f"{run.name} ({run.word})" for run in runs if run.exit_code]
    if not failed:
        return None
    listed = ", ".join(failed[:5])
    more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
    return f"{len(failed)} of {counted(len(runs), 'account')} failed: {listed}{more}"
