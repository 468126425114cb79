"""`ghostclean init`: from nothing to a dry run that can be trusted, at a terminal or by flags."""

from typing import Annotated, Literal

import typer

from ghostclean.cli.command import command
from ghostclean.cli.dialog import Dialog
from ghostclean.cli.output import Common, Outcome, failure_of
from ghostclean.errors import BrokerError, GhostcleanError

_HELP = """From nothing to a dry run that can be trusted.

\b
Examples:
  ghostclean init
  ghostclean init --ledger sqlite:////home/me/bot/bot.db#trades
  ghostclean init --ledger postgresql://bot@localhost/bot --yes
  ghostclean init --set quantity=shares --set takeProfitPrice= --zone America/New_York --yes

Finds the ledger, shows three of its records, proposes which of its fields is which and why, and asks the
account whether it knows these trades. After a yes it writes .env and mapping.toml, never over existing
ones, runs doctor and a dry run, and prints the schedule. The ledger itself is only read.
"""
Schedule = Literal["cron", "systemd", "github"]


@command("init", _HELP, "Find the ledger, propose its mapping, dry run.")
def init(
    common: Common,
    ledger: Annotated[
        str | None, typer.Option("--ledger", metavar="URL", help="Where the trades are: Redis, database or file:PATH.")
    ] = None,
    said: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=NAME", help="The app's name for a field; empty: none."),
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="NAME", help="The zone of times that do not tell theirs.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write what is proposed; ask nothing.")] = False,
    schedule: Annotated[Schedule, typer.Option("--schedule", help="Which schedule to print.")] = "cron",
) -> Outcome:
    from ghostclean.cli.first_run import FirstRun

    run = FirstRun(common, Dialog.of(common, silent=yes))
    try:
        for text in said or ():
            run.say(text, "--set")
        if zone is not None:
            run.say(f"zone={zone}", "--zone")
        run.choose(ledger)
        run.meet()
        run.agree(yes=yes)
        run.write()
        return run.prove(schedule)
    except (GhostcleanError, BrokerError) as error:
        failure = failure_of(error, common)
        document = {**run.document, "ok": False, "error": failure.error, "detail": failure.detail}
        return Outcome(document, failure.exit_code, error=failure.error, detail=failure.detail)
