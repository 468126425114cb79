"""A ledger of live trades and ghosts, for tests in which something goes wrong meanwhile."""

from __future__ import annotations

from tests.cli.world import DAY_AGO, THREE_DAYS_AGO, UNKNOWN_ORDER, YESTERDAY, World, long

LIVE = frozenset({"bracket", "no-order", "working", "pending", "shared-1", "shared-2"})
PROVEN = frozenset({"stopped", "unfilled", "sold"})
UNPROVEN = frozenset({"unknown", "orderless"})
MISSED = "gone"
MISS = {"count": 1, "first": "2026-11-18T14:59:30.000Z", "last": "2026-11-18T14:59:30.000Z"}


def troubled(world: World, *, filler: int = 0) -> None:
    """Six live trades, three proven ghosts, two unproven ones, and one gone without explanation."""
    broker = world.broker
    for n in range(filler):
        at = f"2026-11-16T15:{n // 60:02d}:{n % 60:02d}Z"
        broker.add_order(f"FILL{n % 9}", at=at, qty=1, type="limit", limit_price=1, status="new", time_in_force="gtc")
    bracket = broker.open_trade("AAPL", 10, 180, at=DAY_AGO, bracket=(200, 175))
    broker.open_trade("MSFT", 10, 400, at=DAY_AGO)
    working = broker.add_order("NVDA", at=THREE_DAYS_AGO, qty=10, type="limit", limit_price=100, status="new")
    pending = broker.add_order("AMD", at=THREE_DAYS_AGO, qty=10, type="limit", limit_price=100, status="accepted")
    first = broker.open_trade("GOOG", 30, 170, at=DAY_AGO)
    second = broker.open_trade("GOOG", 20, 170, at=YESTERDAY)
    stopped = broker.open_trade("TSLA", 10, 200, at=DAY_AGO, bracket=(220, 190))
    stop = broker.legs(stopped)[1]
    broker.fill(stop, price="189.90", at=YESTERDAY)
    unfilled = broker.add_order("META", at=DAY_AGO, qty=10, status="canceled", canceled_at=YESTERDAY)
    sold = broker.open_trade("INTC", 10, 30, at=DAY_AGO)
    broker.sell("INTC", 10, 31, at=YESTERDAY)
    gone = broker.open_trade("NFLX", 10, 600, at=DAY_AGO)
    broker.remove_position("NFLX")
    # Another change at the end: a stale page shows the world without it, not without a trade
    broker.add_position("GOOG", 50, 170)
    stop_of_bracket = broker.legs(bracket)[1]
    world.ledger(
        long("bracket", "AAPL", alpacaOrderId=bracket["id"], stopOrderId=stop_of_bracket["id"]),
        long("no-order", "MSFT", 10, 400, 390),
        long("working", "NVDA", 10, 100, 95, alpacaOrderId=working["id"], openedAt=THREE_DAYS_AGO),
        long("pending", "AMD", 10, 100, 95, alpacaOrderId=pending["id"], openedAt=THREE_DAYS_AGO, status="PENDING"),
        long("shared-1", "GOOG", 30, 170, 165, alpacaOrderId=first["id"]),
        long("shared-2", "GOOG", 20, 170, 165, alpacaOrderId=second["id"], openedAt=YESTERDAY),
        long("stopped", "TSLA", 10, 200, 190, alpacaOrderId=stopped["id"], stopOrderId=stop["id"]),
        long("unfilled", "META", 10, 300, 290, alpacaOrderId=unfilled["id"]),
        long("sold", "INTC", 10, 30, 29, alpacaOrderId=sold["id"]),
        long("unknown", "ORCL", 10, 120, 115, alpacaOrderId=UNKNOWN_ORDER, openedAt=THREE_DAYS_AGO),
        long("orderless", "IBM", 10, 120, 115, openedAt=THREE_DAYS_AGO),
        long("gone", "NFLX", 10, 600, 590, alpacaOrderId=gone["id"]),
    )
    with world.state() as state:
        state.remember("misses", {MISSED: MISS})
    # So that exit 5 does not hide what is looked for; the breaker has tests of its own
    world.env["GHOSTCLEAN_MAX_UNPROVEN_CLOSES"] = "50"


def closed(world: World) -> set[str]:
    """The trades that the ledger calls closed."""
    return {i for i, record in world.store.records().items() if record["status"] == "CLOSED"}
