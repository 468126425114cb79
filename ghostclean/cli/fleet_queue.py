"""`ghostclean fleet --queue`: the work goes to RQ workers, and `status` reads what came of it."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ghostclean.cli.output import bad_option

if TYPE_CHECKING:
    from ghostclean.adapters.job_queue import Job, JobQueue, Jobs
    from ghostclean.app.operate.fleet import Account, AccountRun

_NO_WORKER = "no worker listens to the queue: start `rq worker ghostclean` where the env files are"


def by_queue(
    url: str, folder: str, command: str, options: Mapping[str, Any], accounts: Sequence["Account"]
) -> tuple[list["AccountRun"], list[str]]:
    """Enqueues the command for each account, or looks at what was enqueued; with what a person should know."""
    from ghostclean.adapters.job_queue import JobQueue
    from ghostclean.places import redis_place

    if command == "doctor":
        raise bad_option("--queue", "the doctor looks from where it is: ask it on the workers' machines")
    if command == "status" and set(options) - {"check"}:
        raise bad_option("--queue", "of the options of status only --check goes with it")
    try:
        redis_place(url)
    except ValueError as error:
        raise bad_option("--queue", str(error)) from None
    queue = JobQueue(url)
    place = os.path.realpath(folder)
    keys = [_key(place, account) for account in accounts]
    if command == "status":
        jobs = queue.look(keys)
        runs = [_seen(account, its, **options) for account, its in zip(accounts, jobs, strict=True)]
    else:
        runs = [_put(queue, key, place, command, options, account) for key, account in zip(keys, accounts, strict=True)]
    return runs, [] if queue.workers() else [_NO_WORKER]


def _key(folder: str, account: "Account") -> str:
    return f"ghostclean:fleet:{hashlib.sha256(f'{folder}/{account.name}'.encode()).hexdigest()[:32]}"


def _put(
    queue: "JobQueue", key: str, folder: str, command: str, options: Mapping[str, Any], account: "Account"
) -> "AccountRun":
    from ghostclean.cli.options import seconds

    if account.error is not None:
        return _broken(account)
    limit = seconds(options.get("deadline", "60"))
    before = queue.put(key, account.name, command, {"folder": folder, "options": dict(options)}, limit).newest
    if before is not None and before.stands:
        return _run(account, "kept", f"not enqueued again: {_state(before)}", job=before)
    lost = f"; the job before is lost: {before.why}" if before is not None and before.state == "lost" else ""
    return _run(account, "enqueued", f"{command}{lost}")


def _seen(account: "Account", jobs: "Jobs", *, check: bool = False) -> "AccountRun":
    """What came of the newest job, and while that is not over of the one before."""
    from ghostclean.app.operate.fleet import severity

    if account.error is not None:
        return _broken(account)
    newest, before = jobs.newest, jobs.before
    if newest is None:
        return _run(account, "none", "nothing was enqueued for a day", 1 if check else 0)
    said, told = _state(newest), newest
    if newest.stands and before is not None:
        said, told = f"{said}; before: {_state(before)}", before
    code = int(told.outcome["exitCode"]) if told.outcome else 0 if told.stands else 1
    word = newest.outcome["result"] if newest.outcome else newest.state
    if not code and newest.state != "running" and _age(newest) > 2 * account.interval:
        word, code = "stale", 1  # nobody works, or nobody enqueues
    return _run(account, word, said, code if check else 0, unwell=severity(code), job=newest)


def _broken(account: "Account") -> "AccountRun":
    return _run(account, "bad_settings", str(account.error), 2, error="bad_settings")


def _age(job: "Job") -> float:
    return max(1.0, (datetime.now(UTC) - job.since).total_seconds()) if job.since else 1.0


def _state(job: "Job") -> str:
    from ghostclean.durations import spell

    ago = spell(round(_age(job)))
    if job.outcome is not None:
        return f"{job.command} {ago} ago: {job.outcome['detail'] or job.outcome['said']}"
    if job.stands:
        on = f" on {job.worker[:40]}" if job.worker else ""
        return f"{job.command} {job.state} for {ago}{on}"
    return f"{job.command} {job.state} {ago} ago: {job.why}"


def _run(
    account: "Account",
    word: str,
    said: str,
    exit_code: int = 0,
    *,
    unwell: int = 0,
    error: str | None = None,
    job: "Job | None" = None,
) -> "AccountRun":
    from ghostclean.app.operate.fleet import AccountRun
    from ghostclean.render.jsondoc import document_text

    return AccountRun(
        name=account.name,
        kind=account.kind,
        exit_code=exit_code,
        word=word,
        said=said,
        unwell=unwell,
        error=error,
        detail=said if exit_code else None,
        document=document_text(job.to_dict(), for_person=False) if job is not None else None,
    )
