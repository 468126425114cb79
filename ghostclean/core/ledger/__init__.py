"""The app's record of a trade, and its fields."""

from .fields import NOT_FOUND, POSITION_OPEN, changed, is_vanished, same
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
from .trade import (
    ENTRY_ORDER_FIELDS,
    FINAL,
    SIZE_FIELDS,
    Trade,
    is_open,
    is_pending,
    order_ids,
    read_trade,
    record_id,
    record_size,
    status_of,
    text,
)
from .whose import account_marks, other_account
