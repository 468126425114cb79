"""The fleet's work as jobs of RQ: at most one of an account waits or runs.

Which job is an account's stands under a key of ours, changed in the transaction that enqueues;
the one before is kept for its outcome. Jobs have new ids: RQ, which finds out about a lost worker
late, would else take the next job of the account for the lost one. `rq` is imported here only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ghostclean.adapters.redis_client import RedisServer, checked
from ghostclean.core.broker import iso
from ghostclean.errors import BadSettings, QueueFailed

QUEUE = "ghostclean"
_CALL = "ghostclean.api.fleet_job"
_KEPT = 86_400  # seconds that a job is remembered after its end
_START_UP = 10.0  # seconds beside the deadline of its run that a job may take
_ATTEMPTS = 5  # at a transaction that another scheduler disturbs
_LOST = ("AbandonedJobError", "Work-horse terminated")
_WAITING = frozenset({"created", "deferred", "queued", "scheduled", "ready"})


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of one job: `state` is queued, running, done, failed or lost."""

    state: str
    command: str
    since: datetime | None
    worker: str = ""
    outcome: Mapping[str, Any] | None = None
    why: str | None = None

    @property
    def stands(self) -> bool:
        return self.state in ("queued", "running")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        since = iso(self.since) if self.since else None
        known = {"state": self.state, "command": self.command, "since": since, "worker": self.worker or None}
        return {**known, "outcome": self.outcome, "detail": self.why}


@dataclass(frozen=True, slots=True)
class Jobs:
    """The newest job of an account and the one before; None where there is none, or it is long over."""

    newest: Job | None = None
    before: Job | None = None


class JobQueue:
    """RQ's queue `ghostclean` in one Redis; raises QueueFailed, and BadSettings where RQ is not installed."""

    def __init__(self, url: str) -> None:
        try:
            import rq
            import rq.job
        except ImportError:
            raise BadSettings(
                "--queue needs RQ, which is not installed: nothing was done; pip install 'ghostclean[fleet]'"
            ) from None
        self._rq = rq
        self._server = RedisServer(url)
        self._queue = rq.Queue(QUEUE, connection=self._server.client)

    def put(self, key: str, account: str, command: str, call: Mapping[str, Any], seconds: float) -> Jobs:
        """Enqueues the call unless a job of that key stands; what stood before is the answer."""
        from redis.exceptions import WatchError

        with self._server.speaking("enqueueing", QueueFailed, "what was enqueued before stays"):
            for _ in range(_ATTEMPTS):
                try:
                    return self._put(key, account, command, call, seconds)
                except WatchError:
                    continue  # another scheduler was quicker
            raise QueueFailed(f"enqueueing {account} failed: others change its job all the time; see the schedules")

    def _put(self, key: str, account: str, command: str, call: Mapping[str, Any], seconds: float) -> Jobs:
        client = self._server.client
        with client.pipeline() as batch:
            batch.watch(key)
            newest, before = (value.decode() if value else "" for value in batch.hmget(key, "newest", "before"))
            known = self._known([newest])[0]
            if known is not None and known.stands:
                return Jobs(known)
            batch.multi()
            new = f"ghostclean-{secrets.token_hex(12)}"
            self._queue.enqueue_call(
                _CALL,
                kwargs={**call, "account": account, "command": command},
                timeout=int(seconds + _START_UP),
                result_ttl=_KEPT,
                failure_ttl=_KEPT,
                job_id=new,
                description=f"{command} {account}",
                meta={"command": command},
                pipeline=batch,
            )
            batch.hset(key, mapping={"newest": new, "before": newest})
            batch.expire(key, _KEPT)
            batch.execute()
        if before and (old := self._rq.job.Job.fetch_many([before], connection=client)[0]):
            old.delete()
        return Jobs(known)

    def look(self, keys: Sequence[str]) -> list[Jobs]:
        """The jobs of these keys."""
        with self._server.speaking("reading the queue", QueueFailed):
            pairs = checked(self._server.ask(*(("HMGET", key, "newest", "before") for key in keys)))
            ids = [value.decode() if value else "" for pair in pairs for value in pair]
            known = self._known(ids)
        return [Jobs(*known[n : n + 2]) for n in range(0, len(known), 2)]

    def workers(self) -> int:
        """How many workers listen."""
        with self._server.speaking("reading the queue", QueueFailed):
            return int(self._rq.Worker.count(queue=self._queue))

    def _known(self, ids: Sequence[str]) -> list[Job | None]:
        found = self._rq.job.Job.fetch_many([i or "none" for i in ids], connection=self._server.client)
        return [None if job is None else _read(job, datetime.now(UTC)) for job in found]


def _read(job: Any, now: datetime) -> Job:
    status = str(job.get_status(refresh=False).value)
    command, worker = job.meta.get("command", ""), job.worker_name or ""
    if status in _WAITING:
        return Job("queued", command, job.enqueued_at)
    if status == "started":
        # RQ ends a job at its time limit: one that is still said to run later has nobody who runs it.
        over = job.started_at is not None and now - job.started_at > timedelta(seconds=job.timeout or 0)
        why = f"its worker {worker} is gone" if over else None
        return Job("lost" if over else "running", command, job.started_at, worker, why=why)
    result = job.latest_result()
    worker = (result.worker_name if result else "") or worker
    if status == "finished" and result is not None and isinstance(result.return_value, str):
        return Job("done", command, job.ended_at, worker, json.loads(result.return_value))
    why = (result.exc_string if result else None) or status
    state = "lost" if any(word in why for word in _LOST) else "failed"
    return Job(state, command, job.ended_at, worker, why=why.strip().splitlines()[-1][:300])
