"""`snapshot`, `doctor`, `migrate` and `schedule`: for the people who run it."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ghostclean.cli.command import command
from ghostclean.cli.options import DryRun
from ghostclean.cli.output import Common, Outcome, bad_option
from ghostclean.counts import counted

_SNAPSHOT_SECONDS = 120.0

_SNAPSHOT = """Save broker truth and what a decision needs, as one JSON document.

\b
Examples:
  ghostclean snapshot --output incident.json
  GHOSTCLEAN_BROKER=file:incident.json ghostclean reconcile --dry-run

The document holds raw answers of the broker, the ledger's open trades and the broker's time;
nothing secret is in it. A replay decides at that time.
"""
_DOCTOR = """Check settings, ledger, state, broker, account and clock, with the cure of each.

\b
Examples:
  ghostclean doctor
  ghostclean doctor --test-alert
  ghostclean doctor --pin

Exit 1 when a check fails. --pin shows the account that answers beside the ledger's, and accepts it
after a yes at the terminal or with --yes.
"""
_MIGRATE = """Copy a ledger to another place or layout; the source stays as it is.

\b
Examples:
  ghostclean migrate redis://localhost/0#trades:v1:live file:trades.json
  ghostclean migrate file:trades.json redis://localhost/0#trades:v2:live --layout hash --dry-run

The target must not exist or hold no trades; the copy is read back and compared.
"""
_SCHEDULE = """Print a ready-made schedule for this installation.

\b
Examples:
  ghostclean schedule cron
  ghostclean schedule systemd
  ghostclean schedule github > .github/workflows/ghostclean.yml
"""


@command("snapshot", _SNAPSHOT, "Save broker truth for an incident or a replay.")
def snapshot(
    common: Common,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is stdout.")] = "-",
) -> Outcome:
    from dataclasses import replace

    from ghostclean.app.deadline import Deadline
    from ghostclean.app.operate.snapshot import record
    from ghostclean.render.terminal import progress
    from ghostclean.wiring import connected, recorder

    settings, deadline = common.settings(), Deadline(_SNAPSHOT_SECONDS, writes=False)
    watched = progress("asking the broker", common.quiet, _SNAPSHOT_SECONDS)
    with watched as told, connected(settings, progress=told) as parts:
        recording = recorder(settings)
        document = recording.document(record(replace(parts, broker=recording), deadline, settings.policy()))
    if output == "-":
        return Outcome(document)
    written = _save(document, output)
    counts = f"{counted(len(document['positions']), 'position')}, {counted(len(document['orders']), 'working order')}"
    line = f"{written}: {counts}; replay it with GHOSTCLEAN_BROKER=file:{written}"
    about = {"ok": True, "file": written, "error": None, "detail": None}
    return Outcome(about, 0, lambda: () if common.quiet else (line,))


def _save(document: Mapping[str, Any], output: str) -> str:
    from ghostclean.adapters.private_file import write_private
    from ghostclean.core.ledger import PRETTY, dumps

    return write_private(output, dumps(document, PRETTY) + "\n")


@command("doctor", _DOCTOR, "Check everything, with the cure of each failure.")
def doctor(
    common: Common,
    pin: Annotated[bool, typer.Option("--pin", help="Accept the present account as the right one.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --pin.")] = False,
    test_alert: Annotated[bool, typer.Option("--test-alert", help="Send a test by every alert channel.")] = False,
) -> Outcome:
    from ghostclean.render.terminal import folded
    from ghostclean.render.text import check_line

    question = _Question(answer=True if yes else None)
    checks = _checks(common, question if pin else None, test_alert=test_alert)
    failed = [check for check in checks if check["ok"] is False]
    code, error, detail = 0, None, None
    if failed:
        code, error, detail = 1, "reconcile_failed", f"{len(failed)} of {counted(len(checks), 'check')} failed"
    if question.unheard:
        command = f"ghostclean doctor --pin --yes{_env_option(common)}"
        code, error = 2, "bad_settings"
        detail = f"nothing was pinned: {question.unheard}; to accept it type: {command}"
    document = {"ok": not failed, "checks": checks, "error": error, "detail": detail}

    def lines() -> Iterator[str]:
        worth = [check for check in checks if check["ok"] is not True or not common.quiet]
        yield from folded(map(check_line, worth), " " * 18)
        if not failed and not common.quiet:
            notes = sum(check["ok"] is None for check in checks)
            yield f"all {counted(len(checks), 'check')} passed" + (f", {notes} with a note" if notes else "")

    return Outcome(document, code, lines, error=error, detail=detail)


@dataclass(slots=True)
class _Question:
    """Whether the account shall be pinned, asked at the terminal; `unheard` is what nobody was there to answer."""

    answer: bool | None
    unheard: str = ""

    def __call__(self, text: str) -> bool:
        if self.answer is None and not (sys.stdin.isatty() and sys.stderr.isatty()):
            self.unheard = text
            return False
        return self.answer or typer.confirm(f"{text}.\nPin it?", err=True)


def _env_option(common: Common) -> str:
    return f" --env-file {shlex.quote(common.env_file)}" if common.env_file is not None else ""


def _checks(common: Common, question: _Question | None, *, test_alert: bool) -> list[dict[str, Any]]:
    from contextlib import ExitStack, closing
    from datetime import timedelta

    from ghostclean import wiring
    from ghostclean.app.operate.doctor import Check, Installation, examine
    from ghostclean.errors import BadSettings
    from ghostclean.settings import ENV_FILE, unread

    try:
        settings = common.settings()
        settings.mapping_of(settings.ledger_at)
    except BadSettings as error:
        return [Check("settings", False, str(error), "set it right and ask again").to_dict()]
    with wiring.unopened(settings) as stores, ExitStack() as asked:
        installation = Installation(
            stores=stores,
            broker=lambda: asked.enter_context(closing(wiring.broker(settings))),
            rehearsals=wiring.rehearsals(settings, stores),
            settings=tuple(origin for origin in settings.origins() if origin.source != "default"),
            unread=unread(common.env_file),
            env_file=common.env_file or ENV_FILE,
            read_from=settings.read_from,
            account_kind=settings.account_kind,
            interval=timedelta(seconds=settings.interval),
            channels=lambda: wiring.channels(settings),
        )
        return [check.to_dict() for check in examine(installation, agrees=question, test_alert=test_alert)]


@command("migrate", _MIGRATE, "Copy a ledger to another place or layout.")
def migrate(
    common: Common,
    source: Annotated[str, typer.Argument(metavar="FROM", help="redis://…#KEY, file:PATH or a SQL table")],
    target: Annotated[str, typer.Argument(metavar="TO", help="redis://…#KEY, file:PATH or a SQL table")],
    layout: Annotated[
        Literal["string", "hash"] | None, typer.Option("--layout", help="Layout of a Redis target; string by default.")
    ] = None,
    dry_run: DryRun = False,
) -> Outcome:
    from ghostclean.adapters.ledgers.copy import copy_ledger
    from ghostclean.places import ledger_place

    settings = common.settings()
    places, key = [], settings.ledger_key
    for argument, text in (("FROM", source), ("TO", target)):
        try:
            places.append(ledger_place(text).with_key(key))
        except ValueError as error:
            raise bad_option(argument, str(error)) from None
    document = copy_ledger(*places, mapping=settings.mapping_of(places[0]), layout=layout, dry_run=dry_run)
    would = "would copy" if dry_run else "copied and verified"
    trades = counted(document["trades"], "trade")
    line = f"{would} {trades} from {document['from']} to {document['to']} ({document['layout']})"
    return Outcome(document, 0, lambda: () if common.quiet else (line,))


@command("schedule", _SCHEDULE, "Print a cron, systemd or GitHub schedule.")
def schedule(
    common: Common,
    kind: Annotated[Literal["cron", "systemd", "github"], typer.Argument(metavar="cron|systemd|github")],
) -> Outcome:
    text = schedule_for(common, kind)
    document: dict[str, Any] = {"ok": True, "kind": kind, "text": text, "error": None, "detail": None}
    return Outcome(document, 0, text.splitlines)


def schedule_for(common: Common, kind: str) -> str:
    """The schedule of this installation with these settings."""
    from ghostclean.app.operate.schedule import schedule_text
    from ghostclean.settings import ENV_FILE

    beside = Path(sys.executable).parent / "ghostclean"
    program = str(beside) if beside.exists() else shutil.which("ghostclean") or str(beside)
    named = common.env_file is not None
    return schedule_text(kind, program, str(Path.cwd()), common.env_file or ENV_FILE, is_named=named)
