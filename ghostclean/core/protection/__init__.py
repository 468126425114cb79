"""What guards an open trade: its stops, its risk, how much an order may take, the market."""

from .begun import CUT, EOD, ORPHAN, SWAP, BegunClose
from .market import Market
from .protection import Protection, ages_out, exits_of, is_replaceable_now, last_stop, own_ids, protections, why_fixed
from .sizing import (
    GONE,
    Exposure,
    SymbolView,
    allowance,
    barrier,
    can_take,
    exclusive,
    free,
    is_gone,
    remaining,
    wash_trade,
)
from .stops import (
    WORTHWHILE,
    ManagePolicy,
    Risk,
    Rule,
    StopTarget,
    aim,
    is_cut,
    is_fresh_sale,
    is_through,
    is_tighter,
    measure_risk,
    on_tick,
    renewed,
    rule_stops,
    stop_limit,
    tick_at,
)
