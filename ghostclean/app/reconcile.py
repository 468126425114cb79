"""One reconcile run: lock, ledger, broker truth, decide, journal, write, telemetry.

The shared core of `ghostclean reconcile`, `auto-manage` and the Python function. Failures end
in a Result with an error word; nothing but wrong settings is ever raised from here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ghostclean.app import index
from ghostclean.app.apply import Applied, Writer
from ghostclean.app.outside import SECTION
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import JournalEntry, Lease, LedgerView, RunCommit, WriteOutcome
from ghostclean.app.survey import Survey, make_survey, read_truth, recall, recall_section
from ghostclean.core import counting
from ghostclean.core.broker import BrokerTruth
from ghostclean.core.evidence import OrdersOf, RecordsOf
from ghostclean.core.instrument import symbol_key
from ghostclean.core.jsonvalue import json_value
from ghostclean.core.orphans import LOOK_BACK, OrphanView, judge_orphans, orphan_name
from ghostclean.core.plan import Plan
from ghostclean.core.safety import Pin, breaker, knows_this_ledger, short, without_unproven
from ghostclean.core.times import iso
from ghostclean.core.trade import order_ids, record_id, text
from ghostclean.core.verdicts import Action, Decision, Verdict
from ghostclean.core.world import Memory
from ghostclean.errors import (
    AccountMismatch,
    BrokerError,
    DeadlineExceeded,
    GhostcleanError,
    LedgerFailed,
    Locked,
    StateFailed,
)
from ghostclean.result import Result

_log = logging.getLogger("ghostclean")

KIND = "reconcile"
_TOTALS = {"closed": "totalClosed", "synced": "totalSynced", "reduced": "totalSynced", "reopened": "totalSynced"}
_ROUNDS_AGAINST_THE_APP = 4
_LOCK_OUTLIVES_DEADLINE = 5.0
_FIRST_CONTACT_BACK = timedelta(days=30)
_LAST_WORDS = 0.25  # seconds kept for the run's own record


def run_reconcile(parts: Parts, options: Options, *, lease: Lease | None = None) -> Result:
    """Makes one run and returns what happened; never raises for anything the world does.

    `lease` is the lock a caller already holds (auto-manage).
    """
    return _Run(parts, options, lease).result()


@dataclass(slots=True)
class _Run:
    parts: Parts
    options: Options
    lease: Lease | None
    survey: Survey | None = None
    plan: Plan = field(default_factory=lambda: Plan(()))
    orphan_rows: list[Decision] = field(default_factory=list)
    applied: Applied = field(default_factory=Applied)
    truth: BrokerTruth | None = None
    error: str | None = None
    detail: str | None = None
    partial: bool = False
    recovered: list[JournalEntry] = field(default_factory=list)
    restored: dict[str, dict[str, Any]] = field(default_factory=dict)  # memory that a dead run took with it
    remembered: dict[str, Any] = field(default_factory=dict)
    scanned: Any = None
    verdicts: dict[str, Any] = field(default_factory=dict)
    pin: Pin | None = None
    may_pin: bool = False
    notes: list[str] = field(default_factory=list)
    started: datetime = field(init=False)
    began: float = field(init=False)
    inner: bool = field(init=False)
    state_ok: bool = False
    ledger_seen: bool = False
    alerted: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.started = self.parts.wall()
        self.began = self.options.deadline.left()
        self.inner = self.lease is not None

    # ------------------------------------------------------------------ the run

    def result(self) -> Result:
        owned = self.lease is None
        try:
            self._prepare()
            self._work()
        except GhostcleanError as error:
            self._failed(error.code, str(error))
        except BrokerError as error:
            self._failed("broker_truth_failed", f"broker truth is not observed ({error}): nothing was closed")
        except Exception as error:  # the last line of defence: a run always ends in a record
            _log.debug("the run ended in an unexpected error", exc_info=error)
            # Its text may quote a URL or a key; the log, which is scrubbed, has it
            kind = type(error).__name__
            self._failed("reconcile_failed", f"an unexpected {kind}; what was written is journaled; see --verbose")
        except BaseException as error:  # Ctrl-C and the like: recorded as the failure that it is
            self._failed("reconcile_failed", f"the run was stopped ({type(error).__name__}); what was written stays")
            raise
        finally:
            self._finish(owned)
        return self._report()

    def _failed(self, error: str, detail: str) -> None:
        if error == "deadline_exceeded":
            self.partial = True
        self.error, self.detail = error, detail

    def _prepare(self) -> None:
        """State, spool, lock; without them nothing may be written."""
        deadline = self.options.deadline
        try:
            deadline.reading(self.parts.state.open)
            self.state_ok = True
            delivered = deadline.reading(lambda: self.parts.spool.deliver(self.parts.state))
            if delivered:
                self.notes.append(f"{delivered} spooled run records delivered")
            if self.lease is None and not self.options.dry_run:
                self.lease = deadline.reading(self._take_lock)
        except DeadlineExceeded:
            raise StateFailed(
                "the state did not answer in time: nothing was changed; see `ghostclean doctor`"
            ) from None
        if not self.options.dry_run and not self.inner:
            # Not before the lock is ours: a run that exits 7 would leave a start without an end.
            self.parts.eyes.started(self.options.run_id, deadline.left())

    def _take_lock(self) -> Lease:
        seconds = self.options.deadline.left() + _LOCK_OUTLIVES_DEADLINE
        lease = self.parts.state.acquire(f"{self.options.source} {self.options.run_id}", seconds)
        if lease is None:
            info = self.parts.state.lock_info()
            by = f" ({info.holder}, {info.seconds_left:.0f} s left)" if info else ""
            raise Locked(f"another run holds the lock{by}: nothing was changed; it ends by itself")
        return lease

    def _work(self) -> None:
        view = self._read_ledger()
        memory = self._recalled()
        if not view.complete and index.misses_something(view, self.scanned, self.verdicts.keys()):
            view = self._read_ledger(whole=True)
        self.truth = truth = read_truth(self.parts, self.options.deadline)
        self._check_account(truth)
        self.survey = survey = make_survey(
            self.parts, self.options.deadline, self.options.policy, view, memory, self.remembered, truth
        )
        self.truth = survey.truth
        self._check_account(survey.truth)
        self.plan = survey.plan
        if survey.partial:
            self.partial = True
        self._brake()
        self.orphan_rows = self._judge_orphans()
        if not self.options.dry_run:
            self._write()
        if self.partial and self.error is None:
            self._failed("deadline_exceeded", self._why_partial())

    def _read_ledger(self, *, whole: bool = False) -> LedgerView:
        ledger = self.parts.ledger
        read = getattr(ledger, "read_all", ledger.read) if whole else ledger.read  # only a hash has an index
        try:
            view: LedgerView = self.options.deadline.reading(read)
        except DeadlineExceeded:
            raise LedgerFailed("the ledger did not answer in time: nothing was changed; check its server") from None
        self.ledger_seen = view.total > 0
        for stranger in view.strangers:
            self.notes.append(f"ledger: {stranger} is no trade and was left alone")
        return view

    def _recalled(self) -> Memory:
        deadline, state = self.options.deadline, self.parts.state
        try:
            memory = recall(self.parts, deadline)
            self.remembered = recall_section(self.parts, deadline, "orders", dict)
            self.verdicts = recall_section(self.parts, deadline, "verdicts", dict)
            self.scanned = deadline.reading(lambda: state.recall(index.SECTION, [index.NAME])).get(index.NAME)
            pinned = recall_section(self.parts, deadline, "pin", dict).get("account")
            self.recovered = self._recover(deadline.reading(state.intents))
            memory = self._with_restored(memory)
        except DeadlineExceeded:
            raise StateFailed(
                "the state did not answer in time: nothing was changed; see `ghostclean doctor`"
            ) from None
        if isinstance(pinned, dict):
            self.pin = Pin(str(pinned.get("id")), bool(pinned.get("live")))
        return memory

    def _with_restored(self, memory: Memory) -> Memory:
        """The memory as it would be, had no run died: the breaker and the free fills rest on it."""
        exits = self.restored.get("exits", {})
        for trade_id, orders in exits.items():
            exits[trade_id] = list(dict.fromkeys((*memory.exits.get(trade_id, ()), *orders)))
        unproven = {**memory.unproven, **self.restored.get("unproven", {})}
        return replace(
            memory, exits={**memory.exits, **exits}, unproven={i: e for i, e in unproven.items() if e is not None}
        )

    def _recover(self, intents: Sequence[JournalEntry]) -> list[JournalEntry]:
        """What became of changes whose run died before it could say so."""
        if not intents or self.options.dry_run:
            return []
        present = self.options.deadline.reading(lambda: self.parts.ledger.get({e.trade_id for e in intents}))
        settled = []
        for entry in reversed(intents):  # the newest first: what it wrote hides what stood there before
            record = present.get(entry.trade_id)
            # The app may have closed a trade since we synced it: its status is no sign then.
            but = ("updatedAt",) if entry.action == Action.CLOSED else ("updatedAt", "status")
            written = bool(entry.after) and record is not None and _says_all(record, entry.after or {}, but)
            written = written and not self._written_by_another(entry, record or {})
            settled.append(replace(entry, outcome="written" if written else "left"))
            if written and record is not None:
                self._restore(entry, record)
                kept = {n: v for n, v in record.items() if n not in (entry.after or {})}
                present[entry.trade_id] = {**kept, **(entry.before or {})}
        return settled[::-1]

    def _written_by_another(self, entry: JournalEntry, record: Mapping[str, Any]) -> bool:
        """Whether the record owes its values to another run, which decided the same while this one was paused."""
        after = entry.after or {}
        if "updatedAt" not in after or _says_all(record, after, ()):
            return False
        known = self.options.deadline.reading(lambda: self.parts.state.journal(trade_id=entry.trade_id))
        return any(
            e.outcome == "written" and e.id != entry.id and e.after and _says_all({**e.after}, after) for e in known
        )

    def _restore(self, entry: JournalEntry, record: Mapping[str, Any]) -> None:
        """What the dead run would have remembered of a change that it did make."""
        if entry.verdict == Verdict.VANISHED and entry.action == Action.CLOSED:
            self.restored.setdefault("unproven", {})[entry.trade_id] = counting.unproven_close(
                entry.at, entry.run_id, entry.before or {}, entry.after or {}, record
            )
        if entry.verdict == Verdict.REOPENED:
            self.restored.setdefault("unproven", {})[entry.trade_id] = None
        orders = [str(p["orderId"]) for p in entry.proof if p.get("what") == "fill" and p.get("orderId")]
        if orders and entry.action in (Action.CLOSED, Action.REDUCED):
            self.restored.setdefault("exits", {})[entry.trade_id] = list(dict.fromkeys(orders))

    # ------------------------------------------------------------------ brakes

    def _check_account(self, truth: BrokerTruth) -> None:
        live = self.parts.broker.live
        if self.pin is None:
            self.pin, self.may_pin = Pin(truth.account.id, live), True
            return
        why = self.pin.mismatch(truth.account, live)
        if why is not None:
            raise AccountMismatch(
                f"wrong account: {why}; nothing was changed; correct the keys, or accept it with `ghostclean doctor --pin`"
            )

    def _brake(self) -> None:
        survey, policy = self._surveyed(), self.options.policy
        why = None
        if self.may_pin and self.plan.unproven and not policy.allow_mass_close and not self._first_contact(survey):
            why = "nothing shows that this account is the ledger's"
            self.may_pin = False
        why = why or breaker(self.plan, survey.memory, policy, survey.truth.at)
        if why is not None:
            self.plan = without_unproven(self.plan, "the breaker tripped")
            self._failed(
                "mass_close_stopped",
                f"stopped: {why}; none of them was closed, everything proven was; check the account, "
                "then `ghostclean reconcile --allow-mass-close` if they are right",
            )

    def _first_contact(self, survey: Survey) -> bool:
        records = [*survey.view.active, *(r for rows in survey.lookups.closed.values() for r in rows)]
        held = (p.key for p in survey.truth.positions)
        return knows_this_ledger(records, survey.evidence, held) or self._traded_for_it(survey)

    def _traded_for_it(self, survey: Survey) -> bool:
        """Whether a record, a closed one too, names an order that filled in this account of late."""
        deadline, parts = self.options.deadline, self.parts
        try:
            fills = deadline.reading(lambda: parts.broker.fills(survey.truth.at - _FIRST_CONTACT_BACK))
            closed = deadline.reading(lambda: parts.ledger.history(frozenset(fill.key for fill in fills)))
        except (BrokerError, DeadlineExceeded):
            return False
        known = {fill.order_id for fill in fills}
        return any(order_id in known for record in closed for order_id in order_ids(record))

    # ------------------------------------------------------------------ orphans

    def _judge_orphans(self) -> list[Decision]:
        survey, mode = self._surveyed(), self.options.policy.orphans
        if not self.plan.orphans:
            return []
        if mode != "report" and not survey.partial:
            since = survey.truth.at - LOOK_BACK
            needs = [OrdersOf(o.position.key, o.position.symbol, since) for o in self.plan.orphans]
            survey.lookups.answer([*needs, *(RecordsOf(o.position.key) for o in self.plan.orphans)])
            self.plan = replace(self.plan, activity=survey.decide_again(survey.view).activity)
        view = OrphanView(
            mode=mode,
            account=survey.truth.account.id,
            now=survey.truth.at,
            grace=self.options.policy.grace,
            evidence=survey.evidence,
            unproven=survey.memory.unproven,
            present={},
            closed=survey.lookups.closed,
            first_seen=survey.memory.first_seen,
            blocked=self._orphans_blocked(survey),
        )
        decided = judge_orphans(self.plan, view)
        ids = {d.trade_id for d in decided if d.trade_id} | set(survey.memory.unproven)
        if not ids:
            return decided
        present = self.options.deadline.reading(lambda: self.parts.ledger.get(i for i in ids if i))
        return judge_orphans(self.plan, replace(view, present=present))

    def _orphans_blocked(self, survey: Survey) -> str | None:
        if any(d.verdict is Verdict.UNREADABLE for d in self.plan.decisions) or survey.view.strangers:
            return "a record of the ledger is unreadable"
        if any(d.verdict is Verdict.UNKNOWN for d in self.plan.decisions) or self.plan.needs:
            return "a look-up is open"
        if not survey.view.complete:
            return "only the ledger's index was read, the next run reads all of it"
        return "this run is partial" if survey.partial else None

    # ------------------------------------------------------------------ writing

    def _write(self) -> None:
        survey = self._surveyed()
        lease = self.lease
        if lease is None:
            return
        at = iso(self.parts.wall())
        writer = Writer(self.parts, self.options.deadline, lease, self.options.run_id, self.options.source, at)
        writing: Sequence[Decision] = [*self.plan.writing, *self._orphan_writes(survey)]
        for _ in range(_ROUNDS_AGAINST_THE_APP):
            if not writing:
                break
            self.applied.left.clear()
            writer.apply(writing, self.applied)
            if self.applied.out_of_time or not self.applied.left:
                break
            writing = self._decided_again(survey, set(self.applied.left))
        self.partial |= self.applied.out_of_time
        self._flatten_orphans(lease)

    def _orphan_writes(self, survey: Survey) -> list[Decision]:
        """Adoptions and reopenings, without those that a record, added by the app meanwhile, may explain."""
        written = (Action.ADOPTED, Action.REOPENED)
        if not any(d.action in written for d in self.orphan_rows):
            return []
        known = {record_id(r) for r in survey.view.active}
        present = self.options.deadline.writing(self.parts.ledger.read).active
        new = {symbol_key(text(r, "ticker", "symbol") or "") for r in present if record_id(r) not in known}
        why = "the app added a trade of this symbol while we looked; decided in the next run"
        self.orphan_rows = [
            Decision(None, d.ticker, d.verdict, Action.KEPT, why)
            if d.action in written and symbol_key(d.ticker) in new
            else d
            for d in self.orphan_rows
        ]
        return [d for d in self.orphan_rows if d.action in written]

    def _decided_again(self, survey: Survey, ids: set[str]) -> list[Decision]:
        """New decisions for the trades that the app changed while we worked."""
        gone = [i for i, outcome in self.applied.left.items() if outcome is WriteOutcome.EXISTS]
        view = self.options.deadline.writing(self.parts.ledger.read)
        kept = tuple(r for r in view.active)
        plan = survey.decide_again(replace(view, active=kept))
        fresh = {d.trade_id: d for d in plan.decisions}
        tripped = self.error == "mass_close_stopped"
        if tripped:
            fresh = {d.trade_id: d for d in without_unproven(plan, "the breaker tripped").decisions}
        decisions = tuple(fresh.get(d.trade_id, d) if d.trade_id in ids else d for d in self.plan.decisions)
        still = {d.trade_id for d in plan.decisions}
        decisions = tuple(d for d in decisions if d.trade_id not in ids or d.trade_id in still)
        self.plan = replace(self.plan, decisions=decisions)
        for trade_id in ids - {i for i in gone}:
            if trade_id not in still:
                self.applied.left.pop(trade_id, None)
        return [d for d in self.plan.writing if d.trade_id in ids]

    def _flatten_orphans(self, lease: Lease) -> None:
        if not any(row.action is Action.FLATTENED for row in self.orphan_rows):
            return
        # Only this option sends orders; every other run does without that code.
        from ghostclean.app.flatten import Flattener

        flattener = Flattener(self.parts, self.options, self._surveyed(), lease, self.applied.entries)
        self.orphan_rows = [
            flattener.flatten(row) if row.action is Action.FLATTENED else row for row in self.orphan_rows
        ]

    # ------------------------------------------------------------------ the end

    def _finish(self, owned: bool) -> None:
        """The run's own record, and the lock given back; what fails here is spooled or noted."""
        # A failed run inside auto-manage is only noted: its few seconds make no alarm.
        if not self.options.dry_run and self.error != "locked" and not (self.inner and self.error):
            self.alerted = self._tell_outside()
        delivered = self.state_ok and self._deliver()
        if not delivered and self.error != "locked":
            try:
                record = self._late(self._commit())
                seconds = max(self.options.deadline.left(), _LAST_WORDS)
                self.options.deadline.within(lambda: self.parts.spool.put(record), seconds)
            except (GhostcleanError, OSError) as error:
                self.notes.append(f"the run's record is lost: {error}")
        if owned and self.lease is not None and delivered:
            lease = self.lease
            try:
                self.options.deadline.within(
                    lambda: self.parts.state.release(lease), max(self.options.deadline.left(), 0.1)
                )
            except (GhostcleanError, DeadlineExceeded) as error:
                self.notes.append(f"the lock was not given back ({error}); it ends by itself")

    def _deliver(self) -> bool:
        """Commits the run's record; a state that is lost by now makes the run a failed one."""
        commit = self._commit()
        try:
            self.options.deadline.within(
                lambda: self.parts.state.commit(commit), max(self.options.deadline.left(), _LAST_WORDS)
            )
        except (GhostcleanError, DeadlineExceeded) as error:
            self.notes.append("the run's record is kept locally, a later run delivers it")
            if self.error is None:
                self._failed("state_failed", f"the state was lost during the run ({error}); the ledger is as reported")
            return False
        return True

    def _late(self, commit: RunCommit) -> RunCommit:
        """The record for the spool: by the time it arrives, newer runs may know better than its memory.

        What its own writes imply is true for good; all else is left out, as of any failed run.
        """
        kept = {name: values for name, values in commit.memory.items() if name in ("exits", "unproven", "ledger")}
        return replace(commit, memory=kept)

    def _tell_outside(self) -> dict[str, Any] | None:
        """Heartbeat, metrics and alerts; returns what the next run compares with."""
        eyes, deadline = self.parts.eyes, self.options.deadline
        if eyes.heartbeat is None and eyes.webhook is None and eyes.metrics is None:
            return None
        before: Mapping[str, Any] | None = None
        if self.state_ok and (eyes.webhook is not None or eyes.metrics is not None):
            try:
                before = deadline.within(lambda: self.parts.state.recall(SECTION), max(deadline.left() / 4, 0.05)).get(
                    "last", {}
                )
            except (GhostcleanError, DeadlineExceeded) as error:
                self.notes.append(f"alerts: {error}")
        document = self._report().to_dict()
        told = eyes.ended(document, before, self.plan.own_orders.keys(), self.parts.wall(), deadline.left)
        self.notes += [f"outside: {failure}" for failure in eyes.failures]
        return told

    def _commit(self) -> RunCommit:
        counted = not self.options.dry_run and self.error != "locked"
        report = self._report(with_rows=False)
        run = {
            "ts": iso(self.started),
            "source": report.source,
            "runId": report.run_id,
            "checked": report.checked,
            "closed": report.closed,
            "synced": report.synced,
            "ok": report.ok,
            "backfilled": report.backfilled,
            "held": report.held,
            "orphans": report.orphans,
            "failed": report.failed,
            "partial": report.partial,
            "durationMs": report.duration_ms,
            "dryRun": report.dry_run,
            "error": report.error,
            "outsideFailed": len(self.parts.eyes.failures),
        }
        if not counted:
            return RunCommit(KIND, self._delivery, run)
        add = {"runs": 1, "success": int(report.ok), "fail": int(not report.ok), "totalClosed": 0, "totalSynced": 0}
        if self.parts.eyes.failures:
            add["outsideFailed"] = len(self.parts.eyes.failures)
        put = {
            "lastRunAt": iso(self.started),
            "lastOk": "true" if report.ok else "false",
            "lastSource": report.source,
            "lastRunId": report.run_id,
            "lastClosed": str(report.closed),
            "lastSynced": str(report.synced),
            "lastChecked": str(report.checked),
        }
        entries = (*self.recovered, *self.applied.entries, *self._verdict_changes())
        memory = dict(self._memory())
        for name, values in self.restored.items():
            memory[name] = {**values, **memory.get(name, {})}
        if self.alerted is not None:
            memory[SECTION] = {"last": self.alerted}
        totals = {e.id: _TOTALS[e.action] for e in entries if e.outcome == "written" and e.action in _TOTALS}
        return RunCommit(KIND, self._delivery, run, add, put, entries, memory, totals)

    @property
    def _delivery(self) -> str:
        """The name of this run's record: a run id may be used again, its record may not be taken for a copy."""
        return f"{self.options.run_id}@{iso(self.started)}"

    def _memory(self) -> Mapping[str, Mapping[str, Any]]:
        """What the next runs should know; a run without a plan changes nothing."""
        survey = self.survey
        if survey is None:
            return {}
        memory, now, run_id = survey.memory, survey.truth.at, self.options.run_id
        written = self.applied.written
        orphan_names = [orphan_name(o) for o in self.plan.orphans]
        gone = {d.trade_id for d in written if d.action is Action.CLOSED}
        owners = {i: ids for i, ids in self.plan.own_orders.items() if i not in gone}
        sections: dict[str, Mapping[str, Any]] = {
            "misses": {} if self.partial else counting.misses(self.plan, memory, now),
            "first_seen": counting.first_seen(survey.world().trades, orphan_names, memory, now),
            "exits": counting.exits(written, memory),
            "orders": counting.final_orders(owners, survey.evidence, self.remembered),
            "unproven": counting.unproven(written, memory, run_id, now),
            "verdicts": self._verdict_memory(),
        }
        for decision in self.orphan_rows:
            if decision.verdict is Verdict.REOPENED and decision in written:
                sections["unproven"] = {**sections["unproven"], decision.trade_id or "": None}
        if len(survey.world().trades) > self.options.policy.max_trades:
            sections["last_worked"] = {d.trade_id: iso(now) for d in self.plan.decisions if d.trade_id}
        if self.may_pin and self.pin is not None:
            sections["pin"] = {"account": {"id": self.pin.account, "live": self.pin.live, "at": iso(now)}}
        if self.ledger_seen:
            sections[index.SECTION] = {"seen": True, **self._index_memory(survey)}
        return {name: values for name, values in sections.items() if values}

    def _index_memory(self, survey: Survey) -> Mapping[str, Any]:
        """How far the app's index may be trusted; an orphan that it shows for the first time is a doubt."""
        acts = self.options.policy.orphans != "report"
        doubted = any(acts or orphan_name(o) not in survey.memory.first_seen for o in self.plan.orphans)
        return index.remembered(survey.view, self.scanned, self.started, doubted=doubted)

    def _verdict_changes(self) -> list[JournalEntry]:
        """A journal entry for every trade whose verdict is another than in the run before."""
        if self.survey is None or self.options.dry_run or self.lease is None:
            return []
        writer = Writer(
            self.parts, self.options.deadline, self.lease, self.options.run_id, self.options.source, iso(self.started)
        )
        changed = {d.trade_id for d in self.applied.written}
        entries = []
        for number, decision in enumerate(self.plan.decisions):
            known = self.verdicts.get(decision.trade_id or "")
            if decision.trade_id is None or decision.trade_id in changed:
                continue
            if known is None and decision.action is not Action.HELD:
                continue
            if known is None or known.get("verdict") != str(decision.verdict):
                noted = replace(decision, fields={}, remove=(), action=_quiet(decision.action))
                entries.append(writer.entry(noted, "noted", 100_000 + number))
        return entries

    def _verdict_memory(self) -> dict[str, Any]:
        now = iso(self.started)
        present = {d.trade_id: d for d in self.plan.decisions if d.trade_id}
        changes: dict[str, Any] = {
            i: {"verdict": str(d.verdict), "reason": d.reason, "since": now, "runId": self.options.run_id}
            for i, d in present.items()
            if self.verdicts.get(i, {}).get("verdict") != str(d.verdict)
        }
        closed = {d.trade_id for d in self.applied.written if d.action is Action.CLOSED}
        listed = self.plan.own_orders.keys()
        gone = {i: None for i in self.verdicts if i not in listed}
        return {**changes, **gone, **dict.fromkeys(i for i in closed if i)}

    def _report(self, *, with_rows: bool = True) -> Result:
        duration = int((self.began - self.options.deadline.left()) * 1000)
        dry = self.options.dry_run
        done = {id(d) for d in self.applied.written}
        rows = [*self.plan.decisions, *self.orphan_rows]
        counted = [d for d in rows if dry or id(d) in done]
        count = _counter(counted)
        not_written = [d for d in rows if not dry and d.action.writes and id(d) not in done] if self.survey else []
        flattened = [d for d in not_written if d.action is Action.FLATTENED]
        return Result(
            run_id=self.options.run_id,
            source=self.options.source,
            started_at=iso(self.started),
            duration_ms=duration,
            dry_run=dry,
            checked=sum(1 for d in self.plan.decisions),
            closed=count(Action.CLOSED),
            synced=count(Action.SYNCED, Action.REDUCED, Action.REOPENED),
            backfilled=count(Action.ADOPTED),
            held=_counter(rows)(Action.HELD),
            orphans=len(self.plan.orphans),
            failed=len(not_written) - len(flattened),
            partial=self.partial,
            broker=self._broker(),
            results=tuple(self._row(d, id(d) in done) for d in rows) if with_rows else (),
            notes=tuple(self.notes),
            error=self.error,
            detail=self.detail,
            changed=bool(self.applied.written),
        )

    def _row(self, decision: Decision, written: bool) -> dict[str, Any]:
        dry = self.options.dry_run
        action = str(decision.action)
        if decision.action.writes:
            done = written or decision.action is Action.FLATTENED
            action = decision.action.would() if dry else (action if done else str(Action.SKIPPED))
        shows = decision.action.writes and (dry or written)
        adopted = decision.verdict is Verdict.ORPHAN
        return {
            "id": None if adopted and not (written and decision.trade_id) else decision.trade_id,
            "ticker": decision.ticker,
            "verdict": str(decision.verdict),
            "stale": decision.stale,
            "action": action,
            "reason": decision.reason,
            "proof": [json_value(p.to_dict()) for p in decision.proof],
            "before": json_value(decision.before()) if shows else None,
            "after": json_value(dict(decision.fields)) if shows else None,
        }

    def _broker(self) -> dict[str, Any] | None:
        truth = self.truth
        if truth is None:
            return None
        return {
            "positionsCount": len(truth.positions),
            "openOrdersCount": len(truth.orders),
            "fetchedAt": iso(truth.at),
            "account": short(truth.account.id),
        }

    def _why_partial(self) -> str:
        survey = self.survey
        if self.applied.out_of_time or survey is None:
            return "time ran out: what was written stays and is journaled, the next run starts with the rest"
        why = survey.lookups.open[0] if survey.lookups.open else f"the second reading failed ({survey.reread_failed})"
        return f"not everything could be looked up ({why}): those trades are held, the next run starts with them"

    def _surveyed(self) -> Survey:
        assert self.survey is not None
        return self.survey


def _says_all(record: Mapping[str, Any], after: Mapping[str, Any], but: Collection[str] = ("updatedAt",)) -> bool:
    """Whether a record says what was to be written; `updatedAt` is the app's to touch as well."""
    names = after.keys() - set(but)
    return all(name in record and json_value(record[name]) == json_value(after[name]) for name in names)


def _counter(decisions: Iterable[Decision]) -> Callable[..., int]:
    listed = list(decisions)
    return lambda *actions: sum(1 for d in listed if d.action in actions)


def _quiet(action: Action) -> Action:
    return Action.KEPT if action.writes else action
