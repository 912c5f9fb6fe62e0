"""Day1Breakout: examples on each side of each boundary, and a property against pandas."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.patterns.windows import Candle, window
from tickstock.patterns import Signal, Window
from tickstock.patterns.day1_breakout import day1_breakout

PRICES = ("open", "high", "low", "close")
QUIET = Candle(10.00, 10.10, 9.90, 10.00, 100)
"""A candle as all before it: high 10.10, low 9.90, 100 shares."""
UP = Candle(10.00, 10.20, 10.00, 10.11, 151)
"""Closes above them, on more than 1.5 times their volume."""
DOWN = Candle(10.00, 10.00, 9.80, 9.89, 151)


def judge(*candles: Candle, end: str = "2025-11-24 10:00") -> Signal | None:
    return day1_breakout.function(window(candles, end=end))


def quiet(number: int) -> list[Candle]:
    return [QUIET] * number


def test_a_close_above_the_highs_is_long_and_below_the_lows_short() -> None:
    numbers = {"volume": 151.0, "mean_volume": 100.0}
    assert judge(*quiet(50), UP) == Signal("long", {"broken": 10.1, **numbers})
    assert judge(*quiet(50), DOWN) == Signal("short", {"broken": 9.9, **numbers})


@pytest.mark.parametrize("close", [10.10, 9.90, 10.00])
def test_a_close_at_the_extreme_breaks_nothing(close: float) -> None:
    assert judge(*quiet(50), Candle(10, 10.30, 9.70, close, 1000)) is None


@pytest.mark.parametrize(
    ("volume", "usual", "fits"),
    [
        (151, 100, True),
        (150.01, 100, True),
        (150, 100, False),  # exactly 1.5 times
        (149, 100, False),
        (0.15, 0.1, False),  # exactly 1.5 times, in fractions that floats do not hit
        (0.45, 0.3, False),
        (0.151, 0.1, True),
        (0, 0, False),
        (1, 0, True),
    ],
)
def test_the_volume_must_be_above_one_and_a_half_times_the_mean(
    volume: float, usual: float, fits: bool
) -> None:
    before = [QUIET._replace(volume=usual)] * 50
    assert (judge(*before, UP._replace(volume=volume)) is not None) == fits


def test_the_mean_is_that_of_the_fifty_candles_before() -> None:
    busy = QUIET._replace(volume=10_000)
    assert judge(busy, *quiet(50), UP), "the 51st candle before is not in it"
    assert judge(busy, *quiet(49), UP) is None, "the 50th is"
    # 49 of 100 and one of 125: a mean of 100.5, times 1.5 is 150.75.
    assert judge(QUIET._replace(volume=125), *quiet(49), UP)
    assert judge(QUIET._replace(volume=150), *quiet(49), UP._replace(volume=151.5)) is None


def test_fifty_candles_before_are_needed() -> None:
    assert judge(*quiet(49), UP) is None
    assert judge(*quiet(50), UP) is not None
    assert judge(UP) is None


@pytest.mark.parametrize(
    ("extreme", "breakout"),
    [(QUIET._replace(high=10.50), UP), (QUIET._replace(low=9.50), DOWN)],
    ids=["high", "low"],
)
def test_the_extreme_is_that_of_exactly_twenty_candles(extreme: Candle, breakout: Candle) -> None:
    assert judge(*quiet(29), extreme, *quiet(20), breakout), "the 21st candle before is not in it"
    assert judge(*quiet(30), extreme, *quiet(19), breakout) is None, "the 20th is"
    assert judge(*quiet(49), extreme, breakout) is None, "and so is the last"


@pytest.mark.parametrize("day", ["2025-11-24", "2025-07-01", "2025-03-10", "2025-11-03"])
@pytest.mark.parametrize(
    ("clock", "fits"),
    [("09:29", False), ("09:30", True), ("11:59", True), ("12:00", False), ("15:00", False)],
)
def test_the_morning_is_that_of_new_york(day: str, clock: str, fits: bool) -> None:
    """Winter, summer, and the first days of both."""
    assert (judge(*quiet(50), UP, end=f"{day} {clock}") is not None) == fits


def test_the_times_above_are_these_in_utc() -> None:
    def starts(end: str) -> datetime:
        return datetime.fromtimestamp(window([UP], end=end).ts[-1], UTC)

    assert starts("2025-11-24 09:30") == datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
    assert starts("2025-07-01 09:30") == datetime(2025, 7, 1, 13, 30, tzinfo=UTC)


def expected_of(table: pd.DataFrame) -> list[str | None]:
    """The definition in pandas, on whole cents and shares."""
    morning = pd.DatetimeIndex(table.index).tz_convert("America/New_York")
    minutes = morning.hour * 60 + morning.minute
    before = table.shift(1)
    is_loud = table.volume * 100 > before.volume.rolling(50).sum() * 3
    is_open = (minutes >= 570) & (minutes < 720) & is_loud
    above = is_open & (table.close > before.high.rolling(20).max())
    below = is_open & (table.close < before.low.rolling(20).min())
    return [
        "long" if up else "short" if down else None for up, down in zip(above, below, strict=True)
    ]


def window_up_to(table: pd.DataFrame, position: int) -> Window:
    """The last 51 candles, as the scanner gives them: seconds since 1970, prices in dollars."""
    part = table.iloc[max(0, position - 50) : position + 1]
    seconds = np.array([start.timestamp() for start in pd.DatetimeIndex(part.index)])
    open_, high, low, close = (part[name].to_numpy(np.float64) / 100 for name in PRICES)
    volume = part.volume.to_numpy(np.float64)
    return Window("AAPL", "1min", seconds, open_, high, low, close, volume)


@st.composite
def mornings(draw: st.DrawFn) -> pd.DataFrame:
    """Minutes around an edge of the morning, few prices and volumes: edges are met often."""
    day = draw(st.sampled_from(["2025-11-24", "2025-07-01"]))
    clock = draw(st.sampled_from(["08:35", "10:00", "11:00"]))
    size = draw(st.integers(45, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.integers(2, 8))
    open_, close = rng.integers(1000, 1000 + spread, (2, size))
    table = pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) + rng.integers(0, 2, size),
            "low": np.minimum(open_, close) - rng.integers(0, 2, size),
            "close": close,
            "volume": rng.choice([50, 100, 100, 150, 151, 300], size),
        },
        index=pd.date_range(f"{day} {clock}", periods=size, freq="min", tz="America/New_York"),
    )
    # Now and then a candle leaves the range by a cent or stays on its edge.
    for position in draw(st.lists(st.integers(40, size - 1), max_size=6)):
        before = table.iloc[max(0, position - 20) : position]
        close = draw(st.sampled_from([before.high.max(), before.low.min()])) + draw(
            st.integers(-1, 1)
        )
        row = table.index[position]
        table.loc[row, "close"] = close
        table.loc[row, "high"] = max(close, table.loc[row, "high"])
        table.loc[row, "low"] = min(close, table.loc[row, "low"])
        table.loc[row, "volume"] = draw(st.sampled_from([150, 151, 400]))
    return table.set_axis(pd.DatetimeIndex(table.index).tz_convert("UTC"))


@settings(deadline=None, max_examples=60)
@given(mornings())
def test_it_finds_what_pandas_finds(table: pd.DataFrame) -> None:
    found = [day1_breakout.function(window_up_to(table, n)) for n in range(len(table))]
    assert [signal and signal.direction for signal in found] == expected_of(table)
