"""The app's record of a trade, and its fields."""

from .account import account_marks, other_account
from .facts import FACTS, beside, facts_of, not_shown, pending, settled, shown, with_fact, words_of
from .fit import Fit
from .jsontext import (
    COMPACT,
    PRETTY,
    BadJson,
    Edit,
    Layout,
    append,
    dumps,
    edit_record,
    elements,
    find_array,
    json_value,
    loads,
    same_json,
    skip,
    splice,
)
from .mapping import IDENTITY, SIZES, SYNONYMS, TIMES, LedgerMapping, Only, Written
from .mapping_file import BadMapping, read_mapping
from .spelling import Field, Unspeakable
from .trade import (
    ENTRY_ORDER_FIELDS,
    FINAL,
    NOT_FOUND,
    ORDER_ID_FIELDS,
    PENDING,
    POSITION_OPEN,
    SIZE_FIELDS,
    Trade,
    changed,
    is_open,
    is_pending,
    is_vanished,
    means,
    order_ids,
    read_trade,
    record_id,
    record_size,
    same,
    same_value,
    status_of,
    text,
)
