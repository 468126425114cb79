"""What a trade may have entered, so that its size adds up with what was bought and sold."""

from __future__ import annotations

from decimal import Decimal

from ghostclean.core.allocation.attribution import Attribution, Claim, Entry, Purchases, attribute, bought_in
from ghostclean.core.allocation.execution import Execution, total

D = Decimal


def purchases(*quantities: int) -> Purchases:
    return Purchases(Execution(f"o{n}", "buy", D(qty), None, None) for n, qty in enumerate(quantities))


def parts(entry: Entry, *bought: int) -> set[tuple[D, ...]]:
    return {tuple(a.part for a in booking) for booking in entry.bookings(purchases(*bought))}


def may_have_lost(size: int, *lost: int, **fields: D) -> Claim:
    return Claim(D(size), lost=frozenset(map(D, (0, *lost))), **fields)


def test_the_parts_of_an_entry_make_its_fill() -> None:
    assert parts(Entry(D(10), [Claim(D(4)), Claim(D(6))])) == {(4, 6)}
    assert parts(Entry(D(10), [Claim(D(4)), Claim(D(5))])) == set()


def test_a_size_may_be_net_of_what_was_sold() -> None:
    assert parts(Entry(D(10), [Claim(D(4)), may_have_lost(4, 2)])) == {(4, 6)}
    assert parts(Entry(D(10), [may_have_lost(4, 2), may_have_lost(4, 2)])) == {(4, 6), (6, 4)}


def test_of_several_attributions_those_that_the_records_stated_stand() -> None:
    claims = [may_have_lost(4, 2, stated=D(4)), may_have_lost(4, 2, stated=D(6))]
    assert parts(Entry(D(10), claims)) == {(4, 6)}
    assert parts(Entry(D(10), claims[::-1])) == {(6, 4)}


def test_a_purchase_belongs_to_one_trade_as_a_whole() -> None:
    entry = Entry(D(10), [Claim(D(8)), Claim(D(8))])
    whole, scaled_in = Attribution(D(8), 0, D(8)), Attribution(D(2), 1, D(8))
    assert set(entry.bookings(purchases(6))) == {(whole, scaled_in), (scaled_in, whole)}
    two = [Entry(D(5), [Claim(D(8), whole=D(5))]), Entry(D(5), [Claim(D(8), whole=D(5))])]
    for found in attribute(two, purchases(3)):
        assert bought_in(found) == 1, "both want the one purchase: whose it is stays open"
    assert [bought_in(found) for found in attribute(two, purchases(3, 3))] == [0, 0], "which of two, too"
    other = [two[0], Entry(D(5), [Claim(D(9), whole=D(5))])]
    assert [bought_in(found) for found in attribute(other, purchases(3, 4))] == [1, 2]


def test_of_many_purchases_none_each_and_all_are_tried() -> None:
    few, many = purchases(*[1] * 8), purchases(*range(1, 10))
    assert len(few.sums) == 2**8
    assert [(total(many.chosen(bits)), qty) for bits, qty in many.sums] == [(n, n) for n in (*range(10), 45)]


def test_too_many_attributions_tell_nothing() -> None:
    assert parts(Entry(D(22), [may_have_lost(1, *range(1, 11))] * 2)) == {(11, 11)}
    assert parts(Entry(D(40), [may_have_lost(1, *range(1, 20))] * 2)) == set()
