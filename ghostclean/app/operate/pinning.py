"""The account that answers becomes the ledger's: both accounts, and what the new one knows of the ledger's orders."""

from __future__ import annotations

from typing import NamedTuple

from ghostclean.app.operate.fit import Known
from ghostclean.app.parts import Stores
from ghostclean.app.ports import Broker, State
from ghostclean.core.broker import Account, is_uuid, iso
from ghostclean.core.safety import short


class Proposal(NamedTuple):
    """The account that answers; `text` compares it with the pinned one, empty when that is the same."""

    account: Account
    live: bool
    at: str
    text: str


def propose(stores: Stores, broker: Broker) -> Proposal:
    """Raises BrokerError, LedgerFailed and StateFailed."""
    account = broker.account()
    memory = stores.state.recall_all(["pin", "ledger"])
    pinned, known = memory.pinned, memory.ledger.get("account") or {}
    present = f"these keys are of {_name(account.number or account.id, live=broker.live)}"
    if pinned is None:
        text = f"no account is pinned yet, {present}"
    elif pinned.mismatch(account, broker.live) is None:
        text = ""
    else:
        old = _name(str(known.get("number") or pinned.account), live=pinned.live)
        text = f"the ledger belongs to {old}, {present}"
    return Proposal(account, broker.live, iso(broker.now()), text and f"{text}, {_knowledge(stores, broker)}")


def accept(state: State, proposal: Proposal) -> str:
    """Pins it; returns what it is called."""
    account = proposal.account
    state.remember("pin", {"account": {"id": account.id, "live": proposal.live, "at": proposal.at}})
    number = account.number or account.id
    state.remember("ledger", {"account": {"number": number, "live": proposal.live}})
    return _name(number, live=proposal.live)


def _name(number: str, *, live: bool) -> str:
    shown = short(number) if is_uuid(number) else number
    return f"{'live' if live else 'paper'} account {shown}"


def _knowledge(stores: Stores, broker: Broker) -> str:
    named = stores.ledger.read().fit().orders
    return f"which knows {Known.of(named, broker)}" if named else "and the ledger names no order to know it by"
