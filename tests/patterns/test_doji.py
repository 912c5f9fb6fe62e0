"""Doji: examples on each side of each boundary, and a property against pandas."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patterns.windows import Candle, window
from tickstock.patterns import Signal, Window
from tickstock.patterns.doji import doji


def judge(*candles: Candle) -> Signal | None:
    return doji.function(window(candles))


@pytest.mark.parametrize(
    ("candle", "fits"),
    [
        # open, high, low, close: the body is at most a tenth of the range …
        (Candle(10.00, 10.50, 9.50, 10.00), True),  # no body
        (Candle(10.00, 10.50, 9.50, 10.10), True),  # exactly a tenth, up
        (Candle(10.10, 10.50, 9.50, 10.00), True),  # exactly a tenth, down
        (Candle(10.03, 10.20, 10.00, 10.05), True),  # too, though not in floats
        (Candle(10.00, 10.50, 9.50, 10.11), False),
        (Candle(10.11, 10.50, 9.50, 10.00), False),
        (Candle(10.00, 10.50, 9.50, 10.1001), False),
        # … and the range at least a cent, also where floats make it 0.00999…
        (Candle(10.01, 10.01, 10.00, 10.01), True),
        (Candle(33.33, 33.34, 33.33, 33.33), True),
        (Candle(1.10, 1.11, 1.10, 1.10), True),
        (Candle(2500.07, 2500.08, 2500.07, 2500.08), False),  # all of it body
        (Candle(10.0, 10.0099, 10.0, 10.0), False),
        (Candle(10.00, 10.00, 10.00, 10.00), False),
        # A tenth of a range of a cent, in tenths of a cent.
        (Candle(0.500, 0.510, 0.500, 0.501), True),
        (Candle(0.500, 0.510, 0.500, 0.502), False),
    ],
)
def test_on_each_side_of_the_boundaries(candle: Candle, fits: bool) -> None:
    assert (judge(candle) is not None) == fits


def test_it_says_what_it_saw_and_takes_no_side() -> None:
    assert judge(Candle(10.00, 10.50, 9.50, 10.10)) == Signal(
        "neutral", {"body": 0.1, "range": 1.0}
    )


def test_only_the_last_candle_counts() -> None:
    fits, does_not = Candle(10, 11, 9, 10), Candle(9, 11, 9, 11)
    assert judge(does_not, fits)
    assert judge(fits, does_not) is None


cents = st.integers(1, 1_000_000)
offsets = st.integers(0, 30)


@st.composite
def candles_in_cents(draw: st.DrawFn) -> tuple[int, int, int, int]:
    low = draw(cents)
    open_, close = low + draw(offsets), low + draw(offsets)
    return open_, max(open_, close) + draw(offsets), low, close


@given(st.lists(candles_in_cents(), min_size=1, max_size=20))
def test_it_finds_what_pandas_finds(rows: list[tuple[int, int, int, int]]) -> None:
    table = pd.DataFrame(rows, columns=["open", "high", "low", "close"])
    span = table.high - table.low
    expected = (span >= 1) & ((table.close - table.open).abs() * 10 <= span)
    candles = [Candle(*(price / 100 for price in row)) for row in rows]

    def up_to(position: int) -> Window:
        return window(candles[: position + 1])

    assert [doji.function(up_to(n)) is not None for n in range(len(rows))] == expected.tolist()
