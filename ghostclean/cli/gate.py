"""`ghostclean gate`: may a new entry be made?"""

from typing import TYPE_CHECKING, Annotated

import typer

from ghostclean.cli.command import command
from ghostclean.cli.output import Common, Outcome

if TYPE_CHECKING:
    from ghostclean.app.operate.gate import Gate
    from ghostclean.core.broker import BrokerTruth
    from ghostclean.settings import Settings

_HELP = """May a new entry be made? Exit 0 yes, 10 no, 3 unknown.

\b
Examples:
  ghostclean gate && my-bot enter
  ghostclean gate --max-open 5 --json

Only broker truth counts, so ghosts in the ledger never block an entry: distinct symbols with a
position worth $1 or a working entry order, against --max-open. What cannot be read closes the gate.
"""


@command("gate", _HELP, "May a new entry be made? Exit 0 yes, 10 no, 3 unknown.")
def gate(
    common: Common,
    max_open: Annotated[
        int, typer.Option("--max-open", min=0, metavar="N", help="Symbols that may be taken at most.")
    ] = 3,
) -> Outcome:
    _, answer = observed(common.settings(), max_open)
    line = f"{'yes' if answer.allowed else 'no'}: {answer.reason}"
    silent = common.quiet and answer.allowed
    unknown = answer.allowed is None
    return Outcome(
        answer.to_dict(),
        answer.exit_code,
        lambda: () if silent or unknown else (line,),
        error="broker_truth_failed" if unknown else None,
        detail=answer.reason if unknown else None,
    )


def observed(settings: "Settings", max_open: int) -> "tuple[BrokerTruth | None, Gate]":
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.operate.gate import observe
    from ghostclean.wiring import connected

    deadline = Deadline(Common.LOOK_SECONDS, writes=False)
    state = settings.state_at
    has_state = state.kind != "sqlite" or state.path.exists()  # a look must not make a state
    with connected(settings) as parts:
        return observe(parts, deadline, max_open, has_state=has_state)
