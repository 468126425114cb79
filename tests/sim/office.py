"""One installation in the world: a bot with its ledger, and the tool's runs on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ghostclean.app.auto_manage import ManageOptions, run_auto_manage
from ghostclean.app.observation import observe_for_orders
from ghostclean.app.parts import Options, Parts
from ghostclean.app.ports import Lease
from ghostclean.app.reconcile import run_reconcile
from ghostclean.core.inputs import Policy
from ghostclean.core.protection import ManagePolicy
from ghostclean.errors import AnswerLost, BrokerError, LedgerFailed, Refused, StateFailed
from ghostclean.result import ManageResult, Result

from .app import App
from .broker import SimBroker
from .clock import Clock, Crash, Hang, SimDeadline
from .oracles import Judge
from .scene import Scene, Violation
from .stores import SimLedger, SimSpool, SimState, Store
from .world import World

ERRORS: dict[str, Callable[[], Exception]] = {
    "broker": lambda: BrokerError("the network is down"),
    "order": lambda: AnswerLost("the network is down"),
    "ledger": lambda: LedgerFailed("the ledger is out of reach"),
    "state": lambda: StateFailed("the state is out of reach"),
    "spool": lambda: StateFailed("the disk is full"),
}
DEADLINE = 60.0
_INNER_DEADLINE = 3.0


@dataclass
class Process:
    """One run at work: its effects are counted, and the faults strike at their numbers."""

    office: Office
    run_id: str
    faults: dict[int, str]
    count: int = 0
    dead: bool = False

    def effect(self, part: str, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        self.count += 1
        self.office.scene.tick()
        fault = self.faults.get(self.count)
        if fault is None:
            return call()
        self.office.say(f"  {self.run_id}: {fault} at effect {self.count} ({part})")
        return self._strike(fault, part, call)

    def _strike(self, fault: str, part: str, call: Callable[[], Any]) -> Any:
        scene = self.office.scene
        if fault == "refused" and part == "order":
            raise Refused("not now", status=403)
        if fault.endswith("_after"):
            call()
        if fault.startswith("crash"):
            self.dead = True
            raise Crash
        if fault.startswith("error"):
            raise ERRORS[part]()
        if fault.startswith("hang"):
            if fault == "hang_late":
                scene.late.append(call)
            raise Hang
        if fault.startswith("pause"):
            scene.clock.advance(scene.rng.choice((20.0, 70.0, 400.0)))
        if fault.endswith("second"):
            self.office.reconcile({})
        if fault == "clock_back":
            scene.clock.skew = scene.rng.choice((-86400.0, -30.0, 45.0, 3600.0))
        return call()


class Office:
    """One bot, its store and the tool's schedule on it; the oracles that watch it."""

    def __init__(
        self, scene: Scene, name: str, policy: Policy, *, one_text: bool = True, sharing: bool = False,
        alone: bool = False,
    ) -> None:  # fmt: skip
        self.scene, self.name, self.policy, self.one_text = scene, name, policy, one_text
        self.clock: Clock = scene.clock
        self.world: World = scene.world
        self.say = scene.say
        self.store = Store(scene.clock, name, {} if alone else scene.words)
        self.app = App(name, scene.rng, scene.clock, scene.world, self.store, sharing=sharing)
        self.judge = Judge(scene, self.app, sells_orphans=policy.orphans == "flatten")
        self.store.on_write = self.judge.write
        self.reused = False  # every run is given the same run id
        self.runs = self.depth = 0
        scene.apps.append(self.app)

    # ------------------------------------------------------------------ runs

    def reconcile(self, faults: dict[int, str], *, store: Store | None = None) -> Result | None:
        """One `reconcile`, on another store if that is what the settings say today."""
        process, before = self._process(faults), len(self.store.written)
        if process is None:
            return None
        options = Options(process.run_id, "sim", SimDeadline(self.clock, DEADLINE), policy=self.policy)
        parts = self._parts(process, store or self.store)
        result = self._carried_out(process, store or self.store, lambda: run_reconcile(parts, options))
        if result is None:
            return None
        self._tell(process.run_id, result, store or self.store)
        _judge_failure(result.detail)
        if not faults and self.depth == 0 and len(self.store.written) - before < result.closed and store is None:
            raise Violation(f"{process.run_id} says it closed {result.closed}, the ledger shows fewer")
        return result

    def manage(self, faults: dict[int, str], manage: ManagePolicy) -> ManageResult | None:
        """One `auto-manage`, its short reconcile first."""
        process = self._process(faults)
        if process is None:
            return None
        parts, deadline, run_id = self._parts(process, self.store), SimDeadline(self.clock, DEADLINE), process.run_id
        options = ManageOptions(run_id, "sim", deadline, manage, self.policy.grace, lock_wait=1.0)

        def reconcile_first(lease: Lease | None) -> Result:
            short = SimDeadline(self.clock, min(_INNER_DEADLINE, deadline.left()))
            inner = Options(f"{run_id}-reconcile", "auto-manage", short, self.policy)
            return run_reconcile(parts, inner, lease=lease)

        def work() -> ManageResult:
            return run_auto_manage(
                parts, options, reconcile_first=reconcile_first,
                observe=lambda: observe_for_orders(parts, deadline, self.policy),
            )  # fmt: skip

        result = self._carried_out(process, self.store, work)
        if result is not None:
            self.say(f"{run_id}: {result.outcome} {result.reason or ''} {result.detail or ''}")
            for note in result.notes:
                self.say(f"    {note}")
            _judge_failure(result.detail)
        return result

    def _process(self, faults: dict[int, str]) -> Process | None:
        if self.depth > 1:
            return None
        self.runs += 1
        return Process(self, "always" if self.reused else f"{self.name}r{self.runs}", faults)

    def _parts(self, process: Process, store: Store) -> Parts:
        return Parts(
            SimLedger(store, process.effect, process.run_id, one_text=self.one_text),
            SimState(store, process.effect),
            SimSpool(store, process.effect),
            SimBroker(self.world, process.effect, self.judge),
            wall=self.clock.wall,
            pause=self.clock.advance,
        )

    def _carried_out(self, process: Process, store: Store, work: Callable[[], Any]) -> Any:
        judge, unpinned = self.judge, store.pin is None
        around = judge.began, judge.store, judge.was_pinned
        judge.began, judge.store, judge.was_pinned = self.clock.t, store, not unpinned
        self.depth += 1
        may_pin = judge.may_pin()
        try:
            result = work()
            if unpinned and store.pin is not None and not (may_pin or judge.may_pin()):
                raise Violation("the account was pinned to a ledger of which it knows no order")
        except Crash:
            self.say(f"{process.run_id}: killed at effect {process.count}")
            result = None
        finally:
            self.depth -= 1
            took = self.clock.t - judge.began
            judge.began, judge.store, judge.was_pinned = around
        if judge.broken is not None:
            raise judge.broken
        if not process.faults and took > DEADLINE + 5:
            raise Violation("a run without faults took longer than its deadline")
        return result

    def _tell(self, run_id: str, result: Result, store: Store) -> None:
        self.say(f"{run_id}: error={result.error} closed={result.closed} synced={result.synced} {result.detail or ''}")
        for row in result.results:
            self.say(f"    {row['id']} {row['ticker']} {row['verdict']} {row['action']}: {row['reason']}")
            if result.error is None and row["verdict"] in ("live", "reduced") and row["id"]:
                store.explained.add(str(row["id"]))


def _judge_failure(detail: str | None) -> None:
    if detail is not None and "an unexpected" in detail:
        raise Violation(f"unexpected failure: {detail}")
