"""The same window gives the same bits: alone, beside others, in any layout, live and in history."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tests.patterns.windows import PATTERNS, Market, chosen, markets, random_market
from tickstock.patterns import Candles, Found, evaluate, shapes
from tickstock.patterns.evaluate import Failures, Hit, history, live

ALL = [chosen(name) for name in sorted(PATTERNS)]
LONGEST = max(each.candles for each in ALL)


def windows_of(market: Market, length: int) -> Candles:
    """A window for each candle as it was when that candle completed: NaN before the first."""
    whole = market.candles.fitted(len(market.ts) + length - 1)
    columns = (sliding_window_view(column, length).T for column in whole.columns)
    return whole.with_columns(columns)


def relaid(c: Candles, order: str) -> Candles:
    """The same windows in a layout of their own."""
    if order == "spaced":
        columns = [
            np.repeat(np.repeat(column, 2, axis=0), 3, axis=1)[::2, ::3] for column in c.columns
        ]
    else:
        columns = [np.array(column, order="C" if order == "C" else "F") for column in c.columns]
    return c.with_columns(columns)


def picked(c: Candles, windows: list[int]) -> Candles:
    columns = (column[:, windows] for column in c.columns)
    return c.with_columns(columns, c.opens_at[windows], c.closes_at[windows])


def bits(found: Found | None, windows: int) -> NDArray[np.uint64]:
    """(windows, numbers): all that a pattern says, bit by bit."""
    assert found is not None
    columns = [found.where, found.direction, found.strength, *found.details.values()]
    numbers = np.stack(
        [np.broadcast_to(np.asarray(each, dtype=np.float64), (windows,)) for each in columns],
        axis=1,
    )
    return np.where(np.isnan(numbers), np.nan, numbers).view(np.uint64)


def answer(name: str, c: Candles) -> NDArray[np.uint64]:
    one = chosen(name)
    pattern = PATTERNS[name]
    with np.errstate(all="ignore"):
        found = pattern.function(c.fitted(one.candles), one.parameters)
    return bits(found, c.opens_at.size)


def one_by_one(c: Candles) -> Iterator[Candles]:
    """Each window alone: as (length, 1), and as (length,)."""
    for n in range(c.opens_at.size):
        yield picked(c, [n])
        columns = (np.array(column[:, n]) for column in c.columns)
        yield c.with_columns(columns, c.opens_at[n], c.closes_at[n])


@settings(deadline=None, max_examples=15)
@given(market=markets(sizes=(20, 400)), data=st.data())
def test_a_window_gives_the_same_bits_in_any_company(market: Market, data: st.DataObject) -> None:
    panel = windows_of(market, LONGEST)
    some = data.draw(st.lists(st.integers(0, len(market.ts) - 1), min_size=1, max_size=9))
    for name in PATTERNS:
        expected = answer(name, panel)
        for order in ("C", "F", "spaced"):
            assert (answer(name, relaid(panel, order)) == expected).all(), (name, order)
        few = picked(panel, some)
        assert (answer(name, few) == expected[some]).all(), name
        for n, alone in enumerate(one_by_one(few)):
            assert (answer(name, alone) == expected[some[n // 2]]).all(), (name, n)


def test_markets_as_above_have_most_patterns() -> None:
    found = set()
    for seed in range(40):
        panel = windows_of(random_market(seed, 400), LONGEST)
        found |= {hit.pattern for hit in live(ALL, panel, Failures())}
    assert len(found) > 60


@settings(deadline=None, max_examples=25)
@given(
    several=st.lists(markets(sizes=(1, 200)), min_size=1, max_size=4),
    block=st.integers(1, 300),
    data=st.data(),
)
def test_history_finds_what_live_finds(
    several: list[Market], block: int, data: st.DataObject
) -> None:
    """All patterns, over one to four symbols in a row, in blocks of whatever size."""
    several = [market._replace(timeframe="5min") for market in several]
    begins = np.cumsum([0, *(len(market.ts) for market in several[:-1])]).tolist()
    failures = Failures()
    expected = [
        hit._replace(at=hit.at + begin)
        for market, begin in zip(several, begins, strict=True)
        for hit in live(ALL, windows_of(market, LONGEST), failures)
    ]
    whole = in_a_row(several)
    since = data.draw(st.integers(0, len(whole)))
    asked = np.random.default_rng(since).random(len(whole)) < 0.7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "BLOCK", 1)
        patch.setattr(evaluate, "SMALLEST_BLOCK", block)
        patch.setattr(evaluate, "SERIES_BLOCK", block)
        patch.setattr(shapes, "CANDIDATES", 1 + block // 10)
        assert in_order(history(ALL, whole, failures, begins=begins)) == in_order(expected)
        some = history(ALL, whole, failures, begins=begins, since=since, asked=asked)
        assert in_order(some) == in_order(
            hit for hit in expected if hit.at >= since and asked[hit.at]
        )
    assert failures == Failures()


def in_a_row(several: list[Market]) -> Candles:
    all_of_them = [market.candles for market in several]
    columns = [
        np.concatenate(column) for column in zip(*(c.columns for c in all_of_them), strict=True)
    ]
    return all_of_them[0].with_columns(
        columns,
        np.concatenate([c.opens_at for c in all_of_them]),
        np.concatenate([c.closes_at for c in all_of_them]),
    )


def in_order(hits: Iterable[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (hit.at, hit.pattern))
