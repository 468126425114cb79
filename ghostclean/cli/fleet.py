"""`ghostclean fleet`: one command for each account of a folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from ghostclean.cli.command import command
from ghostclean.cli.output import Common, Outcome, bad_option, cleaned, failure_of
from ghostclean.cli.process import stopped_code

if TYPE_CHECKING:
    from ghostclean.app.operate.fleet import Account, AccountRun
    from ghostclean.settings import Settings

_HELP = """One command for each account of a folder: every *.env file there is one account.

\b
Examples:
  ghostclean fleet accounts doctor
  ghostclean fleet accounts reconcile --quiet --deadline 30s
  ghostclean fleet accounts auto-manage --only alpha --dry-run
  ghostclean fleet accounts reconcile --queue redis://jobs:6379/0
  ghostclean fleet accounts status --queue redis://jobs:6379/0

Further options are those of the command. Each account has its own deadline, lock and log prefix; one
that is slow or broken delays and fails no other. The exit code is that of the worst. With --queue the
work is done by `rq worker ghostclean`, on any machine that holds the files.
"""

Inner = Literal["reconcile", "auto-manage", "status", "doctor"]

# Options that are a word on one account, or on none.
_REFUSED = {
    "--run-id": "it names one run, and each account has its own",
    "--allow-mass-close": "the brake of each account is looked at by itself: use --env-file with its file",
    "--pin": "the right account of each ledger is looked at by itself: use --env-file with its file",
    "--test-alert": "one account is enough for that: use --env-file with its file",
    "--watch": "it shows one account; ask for the table as often as you need",
    "--all": "each account has its line in the table anyway",
}
_AFTER_DEADLINE = 10.0  # seconds that a run may take for its last words
_LOOK_LIMIT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfAccount(Common):
    """The options that every command has, for one account; its secrets are known already."""

    secrets: tuple[str, ...] = field(default=(), repr=False)

    COUNTED_FROM_START: ClassVar[bool] = False

    def settings(self) -> "Settings":
        from ghostclean.settings import Settings

        return Settings.of_account(str(self.env_file))

    def say(self, text: str, level: str = "error") -> None:
        from ghostclean.cli.logs import ABOUT

        Common.say(self, f"{ABOUT.get()}: {text}", level)

    def clean(self, text: str) -> str:
        from ghostclean.scrub import scrub

        return scrub(text, self.secrets)


@dataclass(frozen=True, slots=True)
class _Task:
    """A command with its options, for any account of these."""

    command: str
    options: Mapping[str, Any]
    common: Common
    accounts: Mapping[str, "Account"]

    def __call__(self, name: str) -> "AccountRun":
        from ghostclean.cli.logs import ABOUT

        ABOUT.set(name)
        account = self.accounts[name]
        common = _OfAccount(
            json=self.common.json,
            quiet=True,
            verbose=self.common.verbose,
            env_file=account.path,
            log_format=self.common.log_format,
            secrets=account.secrets,
        )
        try:
            return self._reported(account, common, _body(self.command)(common, **self.options))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - one account must not end the others
            return self._reported(account, common, failure_of(error, common).outcome(self.command, self.options))

    def _reported(self, account: "Account", common: Common, outcome: Outcome) -> "AccountRun":
        from ghostclean.app.operate.fleet import AccountRun, unwell
        from ghostclean.render.jsondoc import document_text
        from ghostclean.render.text import said

        document = cleaned(outcome.document, common)
        listed = outcome.error != "bad_settings" and self.command != "status" and not self.common.json
        if self.command == "doctor" and self.common.quiet:
            listed = listed and outcome.exit_code != 0
        told = common.clean(outcome.detail) if outcome.detail else None
        needs = [warning.partition(";")[0] for warning in outcome.warnings if self.command == "reconcile"]
        return AccountRun(
            name=account.name,
            kind=account.kind,
            exit_code=outcome.exit_code,
            word=outcome.error or document.get("health") or document.get("outcome") or "ok",
            said=told or common.clean("; ".join((said(self.command, document), *needs))),
            unwell=unwell(document, outcome.warnings),
            error=outcome.error,
            detail=told,
            lines=tuple(f"{account.name}: {common.clean(line)}" for line in outcome.lines()) if listed else (),
            document=document_text(document, for_person=False) if self.common.json else None,
        )

    def begin(self) -> None:
        """Where an account's log lines go to in this process, which lives long enough to need its garbage collected."""
        import gc

        from ghostclean.cli.logs import log_to_stderr
        from ghostclean.scrub import scrub

        secrets = tuple(dict.fromkeys(secret for account in self.accounts.values() for secret in account.secrets))
        clean = partial(scrub, secrets=secrets)
        gc.set_threshold(20_000, 10, 10)
        log_to_stderr(clean, verbose=self.common.verbose, as_json=self.common.log_format == "json")


class _Found(dict[str, "AccountRun"]):
    """The results so far, counted for who waits."""

    told: Callable[[int], None]

    def __setitem__(self, name: str, run: "AccountRun") -> None:
        super().__setitem__(name, run)
        self.told(len(self))


def _body(name: str) -> Any:
    from ghostclean.cli import manage, operate, reconcile, status

    bodies = {"reconcile": reconcile.reconcile, "auto-manage": manage.auto_manage}
    return {**bodies, "status": status.status, "doctor": operate.doctor}[name]


@command("fleet", _HELP, "One command for each account of a folder.", softens=True, passes_on=True)
def fleet(
    common: Common,
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Holds one file NAME.env for each account.")],
    inner: Annotated[Inner, typer.Argument(metavar="COMMAND", help="reconcile, auto-manage, status or doctor.")],
    rest: Annotated[list[str] | None, typer.Argument(metavar="OPTIONS", help="Those of the command.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, metavar="N", help="Accounts at once.")] = 16,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="This account; repeatable.")] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="REDIS_URL", help="Let RQ workers do it; status reads what came.")
    ] = None,
) -> Outcome:
    from ghostclean.api import account_of
    from ghostclean.app.operate.fleet import accounts_of

    if common.env_file is not None:
        raise bad_option("--env-file", "the files of a fleet are those of its folder")
    options = _options(context, inner, rest or [])
    accounts, notes = accounts_of(folder, only or (), account_of)
    task = _Task(inner, options, common, {account.name: account for account in accounts})
    task.begin()
    if queue is not None:
        from ghostclean.cli.fleet_queue import by_queue

        (runs, more), stop = by_queue(queue, folder, inner, options, accounts), None
        notes += more
    else:
        runs, stop = _here(task, accounts, jobs)
    return _outcome(task, folder, runs, notes, stop)


def _options(context: typer.Context, inner: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The options that are given to the command itself; raises BadSettings for those a fleet can't take."""
    assert context.parent is not None
    known = context.parent.command.get_command(context, inner)  # type: ignore[attr-defined]
    parsed = known.make_context(inner, [*arguments], parent=context.parent)
    given = {}
    for option in known.params:
        value = parsed.params.get(str(option.name))
        if value == option.get_default(parsed):
            continue
        for name in set(option.opts) & set(_REFUSED):
            raise bad_option(name, f"a fleet can't take it, {_REFUSED[name]}")
        given[str(option.name)] = value
    return given


def _here(task: _Task, accounts: Sequence["Account"], jobs: int) -> tuple[list["AccountRun"], BaseException | None]:
    """The work in this process and its children; with what has interrupted it."""
    from ghostclean.app.operate.jobs import Jobs
    from ghostclean.cli.options import seconds
    from ghostclean.render.terminal import progress

    own = "deadline" in task.options or task.command in ("reconcile", "auto-manage")
    limit = seconds(task.options.get("deadline", "60")) + _AFTER_DEADLINE if own else _LOOK_LIMIT
    if task.command != "status":
        _load(accounts)
    found = _Found()
    stop: BaseException | None = None
    common = task.common
    try:
        with progress("asking", common.json or common.quiet) as told:
            found.told = lambda done: told("accounts", done, len(accounts))
            Jobs(task, task.begin, jobs, limit).run(list(task.accounts), found)
    except KeyboardInterrupt as interruption:
        stop = interruption
    return [found.get(account.name) or _missing(task, account, stop) for account in accounts], stop


def _load(accounts: Sequence["Account"]) -> None:
    """What every account needs, once: threads that import the same at one time stand in each other's way."""
    import ghostclean.adapters.alpaca.transport
    import ghostclean.app.auto_manage
    import ghostclean.app.reconcile  # noqa: F401

    if any(account.ledger.startswith("redis:") for account in accounts):
        import redis  # noqa: F401


def _missing(task: _Task, account: "Account", stop: BaseException | None) -> "AccountRun":
    """For an account that has given no result."""
    from ghostclean.app.operate.fleet import AccountRun
    from ghostclean.cli.output import Failure
    from ghostclean.render.jsondoc import document_text

    if stop is not None:
        failure = Failure("reconcile_failed", stopped_code(stop), "interrupted before it had an end")
    else:
        failure = Failure("deadline_exceeded", 6, "it did not end; what was written stays and is journaled")
    document = failure.outcome(task.command, {}).document
    return AccountRun(
        name=account.name,
        kind=account.kind,
        exit_code=failure.exit_code,
        word=failure.error,
        said=failure.detail,
        error=failure.error,
        detail=failure.detail,
        document=document_text(document, for_person=False) if task.common.json else None,
    )


def _outcome(
    task: _Task, folder: str, runs: Sequence["AccountRun"], notes: Sequence[str], stop: BaseException | None
) -> Outcome:
    from ghostclean.app.operate.fleet import failure, worst_first
    from ghostclean.render.jsondoc import Ready

    ordered = worst_first(runs)
    worst, detail = ordered[0], failure(ordered)
    code = worst.exit_code if stop is None else stopped_code(stop)
    error = worst.error if code else None
    rows = [run.to_dict() | ({"document": Ready(run.document)} if run.document is not None else {}) for run in ordered]
    document = {
        "ok": detail is None,
        "command": task.command,
        "folder": folder,
        "exitCode": code,
        "accounts": rows,
        "notes": notes,
        "error": error,
        "detail": detail,
    }
    changes = [line for run in ordered for line in run.lines]
    return Outcome(
        document,
        code,
        lambda: _lines(document, changes, task.common),
        error=error,
        detail=detail,
        warnings=tuple(notes),
    )


def _lines(document: Mapping[str, Any], changes: Sequence[str], common: Common) -> Iterator[str]:
    from ghostclean.render.fleet import fleet_lines

    return fleet_lines(document, changes, quiet=common.quiet)
