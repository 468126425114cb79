"""The names that bots give to the fields of a trade, and the words they write into them.

Of each field: names that say it alone, after `|` names that say it where nothing else does, after `?` names that
may as well mean something else. One that stands earlier is taken before one that stands later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .columns import key_of


class Kind(NamedTuple):
    """A field of a trade: what its values are, and the names of each rank."""

    field: str
    values: str
    ranks: tuple[tuple[str, ...], ...]


def _kinds(table: str) -> tuple[Kind, ...]:
    found = []
    for line in table.strip().splitlines():
        field, values, names = (part.strip() for part in line.split(":"))
        ranks = names.replace("?", "| ?").split("|")
        by_rank: dict[int, list[str]] = {0: [], 1: [], 2: []}
        for at, rank in enumerate(ranks):
            by_rank[2 if "?" in rank else at] += [key_of(name) for name in rank.replace("?", "").split()]
        found.append(Kind(field, values, tuple(tuple(names) for names in by_rank.values())))
    return tuple(found)


# The order is the order in which names are given away: what is special stands before what is common.
KINDS = _kinds("""
id: id: id trade_id | _id uuid guid trade_key position_id trade_uuid ? key ref
ticker: symbol: ticker symbol | pair instrument stock asset contract ? security product name market
status: status: status trade_status position_status is_open | state is_active active open is_closed closed
side: side: side direction position_side trade_side is_short | trade_direction trade_type position_type ? action type
stopOrderId: order: stop_order_id sl_order_id stop_loss_order_id alpaca_stop_order_id alpaca_sl_order_id stop_id | sl_id
takeProfitOrderId: order: take_profit_order_id tp_order_id target_order_id profit_order_id alpaca_tp_order_id | tp_id
closeOrderId: order: close_order_id exit_order_id sell_order_id alpaca_close_order_id alpaca_exit_order_id exit_id
clientOrderId: name: client_order_id alpaca_client_order_id entry_client_order_id | cl_ord_id client_id
alpacaOrderId: order: alpaca_order_id broker_order_id entry_order_id buy_order_id open_order_id | order_id entry_id
initialQuantity: size: initial_quantity original_quantity initial_qty original_qty | initial_shares quantity_initial
filledQty: size: filled_qty filled_quantity qty_filled executed_qty | filled ? executed_quantity
quantity: size: quantity qty shares position_size remaining_quantity remaining_qty | size amount units contracts
entryPrice: price: entry_price avg_entry_price average_entry_price open_price open_rate buy_price | entry ? price
initialStopPrice: price: initial_stop_price original_stop_price initial_stop_loss initial_stop initial_sl original_stop
stopPrice: price: stop_price stop_loss stop_loss_price current_stop sl_price | sl stop hard_stop
takeProfitPrice: price: take_profit_price take_profit target_price tp_price profit_target | tp target
avgFillPrice: price: avg_fill_price average_fill_price filled_avg_price fill_price | filled_price avg_filled_price
closePrice: price: exit_price close_price close_rate sell_price avg_exit_price | exit sold_price exit_rate
lastPrice: price: last_price current_price mark_price | market_price current_rate
unrealizedPnL: money: unrealized_pnl unrealized_pl unrealised_pnl open_pnl | unrealized_profit
realizedPnL: money: pnl realized_pnl realized_pl close_profit_abs pnl_amount | total_pnl net_pnl pl profit
unrealizedR: money: unrealized_r open_r
realizedR: money: realized_r r_multiple | r_mult
openedAt: time: opened_at entry_time entry_date open_date open_time entry_at entered_at entry_timestamp | open_timestamp
executedAt: time: executed_at filled_at fill_time | execution_time
closedAt: time: closed_at exit_time exit_date close_date close_time exit_at exited_at exit_timestamp | close_timestamp
updatedAt: time: updated_at modified_at last_updated | last_update updated
createdAt: time: created_at | created creation_time timestamp ts ? time date
closeReason: text: close_reason exit_reason | exit_type ? reason
accountMode: mode: account_mode trading_mode ? mode env environment paper_or_live
paper: flag: paper is_paper
accountId: text: account_id | account_number
alpacaStatus: text: alpaca_status broker_status order_status alpaca_order_status | entry_order_status
source: text: source
""")  # fmt: skip

FIELDS = tuple(kind.field for kind in KINDS)

_ZONES = {"et": "America/New_York", "est": "America/New_York", "ny": "America/New_York", "utc": "UTC", "gmt": "UTC"}
_UNITS = ("ms", "ts")


def plain_key(name: str) -> str:
    """The key of a name without the zone or unit that it ends with."""
    *first, last = name.lower().replace(".", "_").split("_")
    return key_of("_".join(first)) if first and (last in _ZONES or last in _UNITS) else key_of(name)


def zone_in(name: str) -> str | None:
    """The zone that the name of a time says, as `entry_time_et` does."""
    return _ZONES.get(name.lower().replace(".", "_").rpartition("_")[2])


# --------------------------------------------------------------------------- words


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


LONG = _set("long buy bought b l bull bullish up 1")
SHORT = _set("short sell sold s sell_short bear bearish down -1")
DIRECT = SHORT - _set("sell sold s")  # these may be the sale of a long

FILLED = "filled"  # of an order it is the end, of a trade the beginning
OPEN = _set("open opened active live holding in_position in_trade entered running partial partially_closed")
PENDING = _set("pending new submitted accepted placed pending_new pending_entry working waiting partially_filled")
CLOSED = _set(
    "closed close exited sold done complete completed finished stopped stopped_out stop_loss take_profit target_hit"
    " tp_hit sl_hit win won loss lost closed_manual archived"
)
DEAD = _set("canceled cancelled rejected expired deleted")
BROKEN = _set("error failed")

# What only an order has.
OF_ORDERS = frozenset(
    key_of(name)
    for name in _set(
        "order_type time_in_force tif limit_price submitted_at filled_at filled_avg_price filled_price filled_qty"
        " notional extended_hours canceled_at order_class"
    )
)


# What tells several accounts or bots apart.
OF_OWNERS = frozenset(
    key_of(name)
    for name in _set("account account_id account_name account_type strategy bot bot_id bot_name user_id mode env")
)


def word(value: object) -> str:
    """A word as compared: `Stopped Out` and `STOPPED_OUT` are one; of `TradeStatus.OPEN` the last part."""
    return str(value).strip().rpartition(".")[2].lower().replace(" ", "_").replace("-", "_").lstrip("_")


def worded_names(names: Iterable[str]) -> list[str]:
    """Those of these names that may be of a status or a side."""
    spoken = {key for kind in KINDS if kind.field in ("status", "side") for rank in kind.ranks for key in rank}
    return [name for name in names if plain_key(name) in spoken]
