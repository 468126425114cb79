"""What needs a person: one list a ledger, kept up by every run, told when an item begins and when it ends. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Self

from ghostclean.core.broker import parse_time, symbol_key
from ghostclean.core.verdicts import Action, Decision, Plan, Verdict
from ghostclean.lines import command, printable


class Kind(StrEnum):
    """Why a person is needed, worst first."""

    NAKED = "naked"
    MISSED = "eod_missed"
    UNFINISHED = "unfinished_close"
    STOP = "stop"  # it cannot be moved, or does not fire
    BREAKER = "mass_close_stopped"
    MISMATCH = "mismatch"
    AMBIGUOUS = "ambiguous"
    FILLED_BUT_GONE = "filled_but_gone"
    ORPHAN = "orphan"
    LEDGER = "ledger"  # it fits nothing (never seen, words or orders that mean nothing), or its state is forgotten
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"
    UNDONE = "undone"
    OTHER_ACCOUNT = "other_account"


MANAGED = frozenset({Kind.NAKED, Kind.MISSED, Kind.UNFINISHED, Kind.STOP})  # what auto-manage finds
_WORST = {kind: rank for rank, kind in enumerate(Kind)}
_OF_TRADES = frozenset({*(v for v in Verdict if v.needs_person), Kind.UNKNOWN, Kind.UNDONE})
_NO_NEWS = frozenset({Verdict.UNKNOWN, Verdict.SETTLING})  # not decided: what was found before still stands


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that needs a person: since when, of what, why in one line, and the next command."""

    kind: Kind
    why: str
    command: str
    symbol: str | None = None
    id: str | None = None
    since: str | None = None

    @property
    def key(self) -> str:
        """Its name in the state; the verdicts on one trade are one item."""
        about = "trade" if self.kind in _OF_TRADES else str(self.kind)
        return f"{about}:{self.id or self.symbol or ''}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, also the stored one."""
        return {**asdict(self), "kind": str(self.kind)}

    @classmethod
    def parse(cls, raw: object) -> Item | None:
        """A stored item; None for what a newer version may have left."""
        if not isinstance(raw, Mapping) or str(raw.get("kind")) not in _WORST:
            return None
        words = {name: raw.get(name) for name in ("symbol", "id", "since")}
        return cls(Kind(raw["kind"]), str(raw.get("why")), str(raw.get("command")), **words)


@dataclass(frozen=True, slots=True)
class Attention:
    """The list after a run, worst first, and what it has begun and ended."""

    items: tuple[Item, ...] = ()
    began: tuple[Item, ...] = ()
    ended: tuple[Item, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Its two fields of a run's JSON document."""
        return {
            "attention": [{**item.to_dict(), "new": item in self.began} for item in self.items],
            "settled": [item.to_dict() for item in self.ended],
        }

    def memory(self) -> dict[str, Any]:
        """What the state is to remember; what ended is forgotten."""
        return {item.key: None for item in self.ended} | {item.key: item.to_dict() for item in self.items}


class Needs(NamedTuple):
    """An attention list in short: how many items, and the worst of them."""

    number: int = 0
    first: str = ""
    command: str = ""

    @classmethod
    def of(cls, items: Sequence[Item]) -> Self:
        if not items:
            return cls()
        worst = items[0]
        return cls(len(items), _said(worst.to_dict()), worst.command)


def recall(stored: Mapping[str, Any]) -> tuple[Item, ...]:
    """The list as the state has it, worst first."""
    return _sorted(item for raw in stored.values() if (item := Item.parse(raw)) is not None)


def follow(before: Iterable[Item], found: Iterable[Item], stands: Callable[[Item], bool], at: str) -> Attention:
    """The list after a run that found these; `stands` tells of an item not found whether it is still there."""
    was = {item.key: item for item in before}
    now = {item.key: _dated(item, was.get(item.key), at) for item in found}
    now |= {key: item for key, item in was.items() if key not in now and stands(item)}
    began = (item for key, item in now.items() if key not in was or was[key].kind is not item.kind)
    ended = (item for key, item in was.items() if key not in now)
    return Attention(_sorted(now.values()), _sorted(began), _sorted(ended))


def _dated(item: Item, was: Item | None, at: str) -> Item:
    if was is not None and item.kind is Kind.UNKNOWN:
        return was  # no answer takes back what an answer has shown
    return replace(item, since=was.since if was is not None and was.kind is item.kind else item.since or at)


def _sorted(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(sorted(items, key=lambda i: (_WORST[i.kind], i.since or "", i.symbol or "", i.id or "")))


def of(item: Mapping[str, Any]) -> str:
    """What an item's document is about, on one line."""
    return " ".join(printable(name, 80) for name in (item["symbol"], item["id"]) if name) or "the ledger"


def describe(item: Mapping[str, Any]) -> str:
    """An item's document as one line for a person: of what, which kind, why, and what to do next."""
    return f"{_said(item)} -> {item['command']}"


def _said(item: Mapping[str, Any]) -> str:
    kind = "" if item["kind"] == Kind.LEDGER else f"{item['kind']}: "  # "the ledger: ledger: …" says it twice
    return f"{of(item)}: {kind}{printable(item['why'])}"


def told_by(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The items that a failed run's own line tells of."""
    return [item for item in document["attention"] if item["why"] in (document["detail"] or "")]


# --------------------------------------------------------------------------- what a run finds


_CURES = {
    Kind.NAKED: "ghostclean auto-manage --dry-run",
    Kind.MISSED: "ghostclean auto-manage --dry-run",
    Kind.UNFINISHED: "ghostclean auto-manage",
    Kind.STOP: "ghostclean auto-manage --dry-run",
    Kind.UNKNOWN: "ghostclean reconcile",
    Kind.UNREADABLE: "ghostclean doctor",
}


_BY_HAND = {
    Kind.NAKED: "protect or close it at the broker, or give it a stop in the app, which the next auto-manage places; "
    "with AUTO_MANAGE_CUT_LOSS_ENABLED=1 that closes what is through its stop",
    Kind.MISSED: "close it at the broker, or leave it to the end of the next session",
    Kind.UNFINISHED: "the next auto-manage goes on with it; if the broker keeps refusing, close it there",
    Kind.STOP: "move it at the broker, or correct the record in the app",
    Kind.UNREADABLE: "correct the record in the app",
    Kind.UNKNOWN: "the first run that gets an answer settles it",
}


def by_hand(kind: str) -> str | None:
    """What a person can do where no command settles it."""
    return _BY_HAND.get(Kind(kind))


def cure(kind: Kind, trade_id: str) -> str:
    """What is done about a trade once it was looked at."""
    return _CURES.get(kind, command("resolve", trade_id))


def about(kind: Kind, symbol: str | None, trade_id: str | None, why: str) -> Item:
    """An item of a trade: a person chooses what settles it, or looks at its record and journal first."""
    following = "ghostclean doctor"
    if trade_id:
        following = command("explain", trade_id) if kind in _CURES else cure(kind, trade_id)
    return Item(kind, why, following, symbol or None, trade_id)


def breaks(plan: Plan, verdicts: Mapping[str, Any], patience: timedelta, now: datetime) -> list[Item]:
    """The trades of a plan that need a person; an unanswered one only after `patience`.

    `verdicts` are the earlier verdicts by trade id, each with the time since when it stands.
    """
    found = []
    for decision in plan.decisions:
        kind = _kind(decision)
        if kind is Kind.UNKNOWN and not _is_long_unknown(verdicts.get(decision.trade_id or "", {}), patience, now):
            continue
        if kind is not None:
            found.append(about(kind, decision.ticker, decision.trade_id, decision.reason))
    if plan.about_elsewhere is not None:
        found.append(Item(Kind.OTHER_ACCOUNT, plan.about_elsewhere, "ghostclean reconcile --dry-run --verbose"))
    return found


def _kind(decision: Decision) -> Kind | None:
    if decision.action is not Action.HELD:
        return None
    if decision.undone:
        return Kind.UNDONE
    needed = decision.verdict.needs_person or decision.verdict is Verdict.UNKNOWN
    return Kind(decision.verdict) if needed else None


def _is_long_unknown(known: Mapping[str, Any], patience: timedelta, now: datetime) -> bool:
    since = parse_time(known.get("since")) if known.get("verdict") == Verdict.UNKNOWN else None
    return since is not None and now - since > patience


def unexplained(plan: Plan, rows: Iterable[Decision], grace: timedelta, now: datetime) -> list[Item]:
    """The orphans that stayed as they are, but for those of a trade's break and those that may be gone in a moment."""
    broken = {symbol_key(d.ticker) for d in plan.decisions if _kind(d) is not None}
    kept = {r.ticker: r.reason for r in rows if r.verdict is Verdict.ORPHAN and r.action is Action.KEPT}
    found = []
    for orphan in plan.orphans:
        symbol, traded = orphan.position.symbol, plan.activity.get(orphan.position.key)
        passing = orphan.awaited_by is not None or (traded is not None and now - traded < grace)
        if symbol in kept and not passing and orphan.position.key not in broken:
            found.append(Item(Kind.ORPHAN, kept[symbol], "ghostclean reconcile --orphans adopt --dry-run", symbol))
    return found


def stands(plan: Plan, *, partial: bool, written: Iterable[Decision] = ()) -> Callable[[Item], bool]:
    """Whether an earlier item that a reconcile run did not find is still there: not judged in it, or not its matter.

    `written` is what the run has closed, adopted or sold.
    """
    written = tuple(written)
    judged = {d.trade_id for d in plan.decisions if d.verdict not in _NO_NEWS}
    there = plan.own_orders.keys() - {d.trade_id for d in written if d.stale}
    taken = {symbol_key(d.ticker) for d in written if d.verdict in (Verdict.ORPHAN, Verdict.REOPENED)}
    held = {orphan.position.symbol for orphan in plan.orphans if orphan.position.key not in taken}

    def still(item: Item) -> bool:
        if item.kind is Kind.ORPHAN:
            return partial or item.symbol in held
        if item.kind in MANAGED:
            return item.id is None or item.id in there
        return item.kind in _OF_TRADES and item.id in there - judged

    return still
