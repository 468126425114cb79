"""What a reconcile run leaves: its Result, its telemetry, the memory of the next runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ghostclean.app import index
from ghostclean.app.brakes import FORGETS, why_forgetting
from ghostclean.app.journal import NOTED, WRITTEN
from ghostclean.app.monitors import MEMORY, SECTION
from ghostclean.app.observation import Observation
from ghostclean.app.ports import WORDS, JournalEntry, RunCommit
from ghostclean.app.run import ReconcileRun
from ghostclean.core import attention
from ghostclean.core.alerts import SAFETY
from ghostclean.core.attention import Attention, Item, Kind
from ghostclean.core.broker import ZERO, BrokerTruth, iso
from ghostclean.core.ledger import Trade, json_value, read_trade
from ghostclean.core.neighbours import Claim, word
from ghostclean.core.safety import counting, orphan_name
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.result import Result

KIND = "reconcile"
_TOTALS = {"closed": "totalClosed", "synced": "totalSynced", "reduced": "totalSynced", "reopened": "totalSynced"}


# --------------------------------------------------------------------------- the result


def report(run: ReconcileRun) -> Result:
    if run.result is None:
        run.result = _counted(run)
    return replace(
        run.result,
        duration_ms=run.duration_ms(),
        partial=run.partial,
        notes=tuple(run.notes),
        error=run.error,
        detail=run.detail,
        cause=run.cause,
        failing=run.failing,
    )


def _counted(run: ReconcileRun) -> Result:
    dry = run.dry_run
    done = {id(d) for d in run.written}
    rows = [*run.plan.decisions, *run.orphan_rows]
    made = Counter(d.action for d in rows if dry or id(d) in done)
    failed = _not_written(rows, done) if run.observation and not dry else 0
    return Result(
        run_id=run.run_id,
        source=run.source,
        started_at=iso(run.started),
        duration_ms=0,
        dry_run=dry,
        checked=len(run.plan.decisions),
        closed=made[Action.CLOSED],
        synced=made[Action.SYNCED] + made[Action.REDUCED] + made[Action.REOPENED],
        backfilled=made[Action.ADOPTED],
        held=sum(1 for d in rows if d.action is Action.HELD),
        orphans=len(run.plan.orphans),
        failed=failed,
        broker=_broker(run.truth),
        results=tuple(_row(d, written=id(d) in done, dry=dry) for d in rows),
        attention=_attention(run),
        fit=_fit(run) if run.observation is not None else None,
        changed=bool(run.written),
    )


def _attention(run: ReconcileRun) -> Attention:
    """What needs a person after this run; one that has decided nothing, or is not told, says nothing by silence."""
    before, observation = attention.recall(run.memory.attention), run.observation
    if observation is None or is_untold(run):
        return Attention(before)
    found = []
    if run.error == "mass_close_stopped":
        found.append(Item(Kind.BREAKER, str(run.detail), _look_past_the_breaker(run)))
    now, plan, policy = observation.truth.at, run.plan, run.policy
    found += attention.breaks(plan, run.memory.verdicts, policy.patience, now)
    found += attention.unexplained(plan, run.orphan_rows, policy.grace, now)
    found += _unfit(run)
    sold = () if run.dry_run else (row for row in run.orphan_rows if row.action is Action.FLATTENED)
    done = (*run.written, *sold)
    return attention.follow(before, found, attention.stands(plan, partial=run.partial, written=done), iso(run.started))


def _look_past_the_breaker(run: ReconcileRun) -> str:
    adopting = f" --orphans {run.policy.orphans}" if run.policy.orphans != "report" else ""
    return f"ghostclean reconcile --dry-run --allow-mass-close{adopting}"


def is_untold(run: ReconcileRun) -> bool:
    """Whether it is a failed run inside auto-manage: its few seconds make no alarm, unless a safety rule speaks."""
    return run.inner and run.error is not None and run.error not in SAFETY


def _unfit(run: ReconcileRun) -> list[Item]:
    """A ledger that was never there, whose words mean nothing to us or whose orders nobody knows is watched in vain."""
    fit = run.fitting()
    why = fit.why_not(_known_words(run))
    if not fit.exists:
        why = "; ".join([f"there is no ledger at {run.parts.ledger.place}", *run.around])
    elif run.is_stranger and run.error is None:
        why = f"this account knows none of the order ids that its trades name ({len(fit.orders)})"
    elif run.met == FORGETS:  # told once: it would be news to every run of a state that forgets
        why = why_forgetting(run)
    return [Item(Kind.LEDGER, why, "ghostclean doctor")] if why is not None else []


def _fit(run: ReconcileRun) -> dict[str, Any]:
    """Whether the ledger fits, with how many of the order ids this account knows, as far as they were asked for."""
    fit, evidence = run.fitting(), run.observed().evidence
    known = sum(evidence.find(name) is not None for name in fit.orders)
    unknown = sum(evidence.find(name) is None and evidence.is_absent(name) for name in fit.orders)
    return {**fit.to_dict(), "orders": {"named": len(fit.orders), "known": known, "unknown": unknown}}


def _known_words(run: ReconcileRun) -> set[str]:
    """Statuses that stood beside open trades: they are the app's own, and no sign that its words are not ours."""
    return set(run.memory.ledger.get(WORDS) or ())


def _not_written(rows: Iterable[Decision], done: Collection[int]) -> int:
    return sum(1 for d in rows if d.action.writes and d.action is not Action.FLATTENED and id(d) not in done)


def _row(decision: Decision, *, written: bool, dry: bool) -> dict[str, Any]:
    shows = decision.action.writes and (dry or written)
    unnamed = decision.verdict is Verdict.ORPHAN and not written
    return {
        "id": None if unnamed else decision.trade_id,
        "ticker": decision.ticker,
        "verdict": str(decision.verdict),
        "stale": decision.stale,
        "action": _action(decision, written=written, dry=dry),
        "reason": decision.reason,
        "proof": [json_value(p.to_dict()) for p in decision.proof],
        "before": json_value(decision.before()) if shows else None,
        "after": json_value(dict(decision.fields)) if shows else None,
    }


def _action(decision: Decision, *, written: bool, dry: bool) -> str:
    action = decision.action
    if not action.writes or written:
        return str(action)
    if dry:
        return action.would()
    return str(action if action is Action.FLATTENED else Action.SKIPPED)


def _broker(truth: BrokerTruth | None) -> dict[str, Any] | None:
    if truth is None:
        return None
    return {
        "positionsCount": len(truth.positions),
        "openOrdersCount": len(truth.orders),
        "fetchedAt": iso(truth.at),
        "account": truth.account.id,
    }


# --------------------------------------------------------------------------- the record


def record(run: ReconcileRun) -> RunCommit:
    """The run's record; dry, locked and interrupted runs are listed, not counted."""
    told = report(run)
    # A run id may be used again, and its record must not be taken for a copy of the first.
    delivery, listed = f"{run.run_id}@{iso(run.started)}", run.signed(_listed(run, told))
    if run.dry_run or run.error == "locked":
        return RunCommit(KIND, delivery, listed)
    add, put = _summary(run, told) if run.counts else ({}, {})
    entries = (*run.recovered, *run.journal.entries, *_verdict_changes(run))
    memory = dict(_memory(run))
    for name, values in run.restored.items():
        memory[name] = {**values, **memory.get(name, {})}
    memory["attention"] = told.attention.memory()
    memory |= run.row_of_failures(KIND)
    if run.alerted is not None:
        memory[SECTION] = {MEMORY[KIND]: run.alerted}
    totals = _totals(entries, run.overwritten)
    about = run.about(told.attention, run.failing and run.failing._asdict())
    return RunCommit(KIND, delivery, listed, add, put, entries, memory, totals, about, _word(run))


def _summary(run: ReconcileRun, told: Result) -> tuple[dict[str, int], dict[str, str]]:
    add = {"runs": 1, "success": int(told.ok), "fail": int(not told.ok), "totalClosed": 0, "totalSynced": 0}
    if run.parts.monitors.failures:
        add["outsideFailed"] = len(run.parts.monitors.failures)
    put = {
        "lastRunAt": iso(run.started),
        "lastOk": "true" if told.ok else "false",
        "lastSource": told.source,
        "lastRunId": told.run_id,
        "lastClosed": str(told.closed),
        "lastSynced": str(told.synced),
        "lastChecked": str(told.checked),
        "lastError": told.error or "",
        **({"lastSuccessAt": iso(run.started)} if told.ok else {}),
    }
    return add, put


def _totals(entries: Iterable[JournalEntry], overwritten: Collection[str]) -> dict[str, str]:
    """The total that each written entry adds to; a close that the app overwrote was counted when it was made first."""
    counted = (e for e in entries if e.outcome == WRITTEN and e.action in _TOTALS)
    return {e.id: _TOTALS[e.action] for e in counted if e.action != Action.CLOSED or e.trade_id not in overwritten}


def _listed(run: ReconcileRun, told: Result) -> dict[str, Any]:
    return {
        "ts": iso(run.started),
        "source": told.source,
        "runId": told.run_id,
        "checked": told.checked,
        "closed": told.closed,
        "synced": told.synced,
        "ok": told.ok,
        "backfilled": told.backfilled,
        "held": told.held,
        "orphans": told.orphans,
        "failed": told.failed,
        "partial": told.partial,
        "durationMs": told.duration_ms,
        "dryRun": told.dry_run,
        "error": told.error,
        "detail": told.detail,
        "cause": told.cause,
        "outsideFailed": len(run.parts.monitors.failures),
    }


def _word(run: ReconcileRun) -> tuple[str, dict[str, Any]] | None:
    """What the ledger explains, said to the other ledgers of the account.

    Not while nothing shows that it is this account's: a wrong setting would speak for days.
    """
    seen = run.ledger_seen or run.memory.ledger.get("seen")
    if run.observation is None or not seen or run.pin is run.to_pin is None:
        return None
    truth, closed = run.observation.truth, {d.trade_id for d in run.written if d.stale}
    claims = [claim for claim in run.plan.claims if claim.trade not in closed]
    whole = {(p.key, str(p.side)): p for p in truth.positions.rows}
    for trade_id, place in run.left.items():
        if (position := whole.get(place)) is not None:
            claims.append(Claim(trade_id, position.symbol, position.side, ZERO, position.qty, proven=False))
    for decision in run.written:  # which the plan did not count among the trades yet
        if decision.action in (Action.ADOPTED, Action.REOPENED):
            trade = read_trade({**(decision.base or {}), **decision.fields})
            named, held = tuple(sorted(trade.order_ids)), trade.size or whole[trade.key, str(trade.side)].qty
            claims.append(Claim(trade.id or "", trade.symbol, trade.side, held, held, proven=False, orders=named))
    return truth.account.id, word(run.parts.ledger.place, truth.at, run.policy.interval, claims)


# --------------------------------------------------------------------------- what the next runs know


def _memory(run: ReconcileRun) -> Mapping[str, Mapping[str, Any]]:
    observation = run.observation
    seen: Mapping[str, Any] = {"seen": True} if run.ledger_seen else {}
    sections: dict[str, Mapping[str, Any]] = {}
    if observation is not None:
        sections = _trade_memory(run, observation)
        if run.to_pin is not None:
            at = iso(observation.truth.at)
            sections["pin"] = {"account": {"id": run.to_pin.account, "live": run.to_pin.live, "at": at}}
        scanned = run.memory.ledger.get(index.NAME)
        seen = {**seen, **index.remembered(observation.view, scanned, run.started)} if seen else {}
        words, known = {*run.fitting().unknown}, _known_words(run)
        if seen and observation.world().trades and not words <= known:
            seen = {**seen, WORDS: sorted(words | known)}
        if run.account != run.memory.ledger.get("account"):
            seen = {**seen, "account": run.account}
    return {name: values for name, values in {**sections, index.SECTION: seen}.items() if values}


def _trade_memory(run: ReconcileRun, observation: Observation) -> dict[str, Mapping[str, Any]]:
    memory, now, written = observation.memory, observation.truth.at, run.written
    trades = observation.world().trades
    gone = {d.trade_id for d in written if d.action is Action.CLOSED}
    owners = {i: ids for i, ids in run.plan.own_orders.items() if i not in gone}
    sections: dict[str, Mapping[str, Any]] = {
        "misses": {} if run.error is not None else counting.misses(run.plan, memory, now),
        "first_seen": counting.first_seen(trades, map(orphan_name, run.plan.orphans), memory, now),
        "exits": counting.exits(written, memory),
        "orders": counting.final_orders(owners, observation.evidence, run.memory.orders),
        "unproven": {**counting.unproven(written, memory, run.run_id, now), **_taken_back(written)},
        "verdicts": _verdict_memory(run, trades),
    }
    if len(trades) > run.policy.max_trades:
        sections["last_worked"] = {d.trade_id: iso(now) for d in run.plan.decisions if d.trade_id}
    return sections


def _taken_back(written: Iterable[Decision]) -> dict[str, None]:
    return {d.trade_id or "": None for d in written if d.verdict is Verdict.REOPENED}


def _verdict_changes(run: ReconcileRun) -> list[JournalEntry]:
    if run.observation is None or run.dry_run or run.lease is None:
        return []
    written = {d.trade_id for d in run.written}
    news = [d for d in run.plan.decisions if d.trade_id not in written and _is_news(d, run.memory.verdicts)]
    return [replace(run.journal.decided(_without_fields(d)), outcome=NOTED) for d in news]


def _is_news(decision: Decision, verdicts: Mapping[str, Any]) -> bool:
    known = verdicts.get(decision.trade_id or "")
    if decision.trade_id is None or (known is None and decision.action is Action.KEPT):
        return False
    return known is None or known.get("verdict") != str(decision.verdict)


def _without_fields(decision: Decision) -> Decision:
    action = Action.KEPT if decision.action.writes else decision.action
    return replace(decision, fields={}, remove=(), action=action)


def _verdict_memory(run: ReconcileRun, trades: Iterable[Trade]) -> dict[str, Any]:
    """The last verdict on every trade, and what it is of; a trade that left its position behind is kept."""
    decided = {d.trade_id: d for d in run.plan.decisions}
    said = {t.id: _said(run, decided[t.id], t) for t in trades if t.id and t.id in decided}
    changes = {i: value for i, value in said.items() if value != run.memory.verdicts.get(i)}
    return {**changes, **dict.fromkeys(_forgotten(run))}


def _forgotten(run: ReconcileRun) -> list[str]:
    closed = [d.trade_id or "" for d in run.written if d.stale]
    return closed + [i for i in run.memory.verdicts if i not in run.plan.own_orders and i not in run.left]


def _said(run: ReconcileRun, decision: Decision, trade: Trade) -> dict[str, Any]:
    said = dict(run.memory.verdicts.get(decision.trade_id or "", {}))
    if said.get("verdict") != str(decision.verdict):
        said = {"verdict": str(decision.verdict), "reason": decision.reason}
        said |= {"since": iso(run.started), "runId": run.run_id}
    said |= {"key": trade.key, "side": str(trade.side)}
    by = run.overwritten.get(decision.trade_id or "")
    return {**said, "overwritten": by} if by is not None else said
