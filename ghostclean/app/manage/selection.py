"""Which trades a run manages, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ghostclean.app.manage.trade_closer import BLOCKED, MISSED
from ghostclean.app.manage.trade_journal import TradeJournal
from ghostclean.app.manage.trades import OpenTrades
from ghostclean.core.attention import Kind, about
from ghostclean.core.broker import is_option, iso, parse_time, symbol_key
from ghostclean.core.protection import Market
from ghostclean.core.verdicts import Action, Holding, Verdict
from ghostclean.counts import counted


def longest_unmanaged(journal: TradeJournal, holdings: Sequence[Holding], most: int) -> list[Holding]:

    def managed_at(holding: Holding) -> str:
        known = journal.managed.get(holding.trade.id or "", {}).get("at")
        own = holding.trade.record.get("autoManage")
        recorded = own.get("lastManagedAt") if isinstance(own, Mapping) else None
        return str(known or recorded or "")

    ordered = sorted(holdings, key=lambda h: (managed_at(h), h.trade.id or ""))
    if ordered[most:]:
        journal.notes.append(f"{counted(len(ordered) - most, 'trade')} left for a later run (AUTO_MANAGE_MAX_PER_RUN)")
    return ordered[:most]


def list_naked(journal: TradeJournal, trades: OpenTrades, holdings: Sequence[Holding], now: datetime) -> None:
    for managed in trades.managed(holdings, {}, now):
        if managed.protection.is_naked:
            journal.flag(Kind.NAKED, managed.trade, "no stop that can fire; its market is closed")


def list_held(journal: TradeJournal, trades: OpenTrades) -> None:
    ready, ids = {h.trade.id for h in trades.manageable()}, trades.ids
    for decision in trades.observed.plan.decisions:
        if decision.trade_id in ready or decision.trade_id not in ids:
            continue
        why = "options never get orders" if is_option(decision.ticker) else f"{decision.verdict}: {decision.reason}"
        journal.notes.append(f"{decision.ticker} {decision.trade_id}: no order ({why})")


def note_held_overnight(journal: TradeJournal, trades: OpenTrades) -> list[str]:
    """Held trades that stay open over the close of the day; one failure each."""
    truth = trades.observed.truth.positions
    positions = {p.key for p in truth.rows if not p.is_crypto} | {u.key for u in truth.unread}
    failures, ids = [], trades.ids
    for decision in trades.observed.plan.decisions:
        settles = decision.verdict is Verdict.SETTLING  # the next run of this session may flatten it
        held = decision.action is Action.HELD and decision.trade_id in ids and not settles
        if held and symbol_key(decision.ticker) in positions and not is_option(decision.ticker):
            journal.notes.append(
                f"{decision.ticker} {decision.trade_id}: {BLOCKED}: it is held ({decision.verdict}) and stays open"
            )
            why = f"it is held ({decision.verdict}) and stays open over the night"
            journal.items.append(about(Kind.MISSED, decision.ticker, decision.trade_id, why))
            failures.append(BLOCKED)
    return failures


def session_on_duty(market: Market) -> Mapping[str, str | None] | None:
    """The session in which flattening is on duty, for the next run."""
    return {"close": iso(market.close)} if market.close is not None else None


def note_missed_close(
    journal: TradeJournal, holdings: Sequence[Holding], market: Market, stored: object, now: datetime
) -> list[str]:
    """Trades that a close of the day should have flattened: on that day in every run, later once.

    `stored` is the session of the last run on duty; one failure a trade.
    """
    duty = parse_time(stored.get("close")) if isinstance(stored, Mapping) else None
    closed = market.closed_today(now)
    if closed is None and duty is not None and now >= duty:
        closed = duty
    if closed is None:
        return []
    failures = []
    for holding in holdings:
        opening = holding.trade.opening
        if not holding.position.is_crypto and (opening is None or opening < closed):
            journal.flag(Kind.MISSED, holding.trade, f"still open after the close at {iso(closed)}")
            failures.append(MISSED)
    return failures
