"""The random market: what holds for every seed, and whether it looks like a market."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from statistics import mean
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickstock.bars import Bar, Number
from tickstock.simulator import Minute, RandomMarket, default_start, ticker_symbols
from tickstock.simulator.market import KNOWN_TICKERS

NEW_YORK = ZoneInfo("America/New_York")

moments = st.builds(
    lambda minutes, seconds, zone: (
        datetime(2015, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes, seconds=seconds)
    ).astimezone(zone),
    st.integers(0, 20 * 365 * 24 * 60),
    st.just(0) | st.integers(0, 59),
    st.sampled_from([UTC, NEW_YORK]),
)


def is_trading(ts: datetime) -> bool:
    local = ts.astimezone(NEW_YORK)
    return local.weekday() < 5 and time(4) <= local.time() < time(20)


def on_grid(number: Number, digits: int) -> bool:
    return isinstance(number, float) and number == round(number, digits)


def assert_sound(bar: Bar, ts: datetime) -> None:
    assert bar.ts == ts
    assert all(on_grid(price, 2) for price in (bar.open, bar.high, bar.low, bar.close))
    assert 0 < bar.low <= min(bar.open, bar.close)
    assert max(bar.open, bar.close) <= bar.high
    assert bar.vwap is not None
    assert on_grid(bar.vwap, 4)
    assert bar.low <= bar.vwap <= bar.high
    assert bar.trades is not None
    assert type(bar.volume) is type(bar.trades) is int
    assert 0 < bar.trades <= bar.volume
    if bar.trades == 1:
        assert bar.open == bar.high == bar.low == bar.close == bar.vwap


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**40), moments)
def test_bars_are_sound_and_minutes_are_trading_minutes(
    symbols: int, seed: int, start: datetime
) -> None:
    market = RandomMarket(symbols, seed=seed, start=start)
    minutes = list(islice(market.minutes(), 200))
    assert minutes[0].ts >= start
    assert all(earlier.ts < later.ts for earlier, later in pairwise(minutes))
    for minute in minutes:
        assert minute.ts.tzinfo is UTC
        assert (minute.ts.second, minute.ts.microsecond) == (0, 0)
        assert is_trading(minute.ts)
        names = [bar.symbol for bar in minute.bars]
        assert len(set(names)) == len(names)
        assert set(names) <= set(market.symbols)
        for bar in minute.bars:
            assert_sound(bar, minute.ts)


@settings(max_examples=25, deadline=None)
@given(moments, st.integers(1, 3_000))
def test_no_trading_minute_is_left_out(start: datetime, number: int) -> None:
    stamps = [minute.ts for minute in islice(RandomMarket(1, start=start).minutes(), number)]
    minute = timedelta(minutes=1)
    for earlier, later in pairwise(stamps):
        skipped = (later - earlier) // minute - 1
        assert not any(is_trading(earlier + n * minute) for n in range(1, skipped + 1))
    first = start.astimezone(UTC)
    assert not any(is_trading(first + n * minute) for n in range((stamps[0] - first) // minute))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 40))
def test_the_seed_decides(seed: int, symbols: int) -> None:
    start = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)

    def played(seed: int) -> list[Minute]:
        return list(islice(RandomMarket(symbols, seed=seed, start=start).minutes(), 30))

    market = RandomMarket(symbols, seed=seed, start=start)
    assert list(islice(market.minutes(), 30)) == played(seed)
    assert list(islice(market.minutes(), 30)) == played(seed), "minutes() did not begin anew"
    assert played(seed) != played(seed + 1)


def test_the_end_is_exclusive() -> None:
    start = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)
    market = RandomMarket(1, start=start, end=start + timedelta(minutes=3))
    assert [minute.ts.minute for minute in market.minutes()] == [0, 1, 2]
    assert not list(RandomMarket(1, start=start, end=start).minutes())


@given(moments)
def test_the_default_start_is_in_the_past_by_hours(now: datetime) -> None:
    start = default_start(now)
    local = start.astimezone(NEW_YORK)
    today = now.astimezone(NEW_YORK).date()
    assert (local.time(), start.tzinfo) == (time(8, 30), UTC)
    assert local.weekday() < 5
    assert local.date() < today
    between = [local.date() + timedelta(days=n) for n in range(1, (today - local.date()).days)]
    assert all(day.weekday() >= 5 for day in between), "a later weekday is over too"
    assert now - start >= timedelta(hours=14)


def test_without_a_start_the_market_begins_at_the_default_one() -> None:
    before = default_start(datetime.now(UTC))
    first = next(RandomMarket(1).minutes()).ts
    assert first in {before, default_start(datetime.now(UTC))}


@pytest.mark.parametrize("number", [1, 3, len(KNOWN_TICKERS), 51, 30_000])
def test_ticker_symbols(number: int) -> None:
    symbols = ticker_symbols(number)
    assert len(symbols) == len(set(symbols)) == number
    assert symbols[:50] == KNOWN_TICKERS[:number]
    assert symbols == ticker_symbols(number + 1)[:-1]
    assert all(1 <= len(symbol) <= 5 and symbol.isupper() for symbol in symbols)


@pytest.mark.parametrize("symbols", [0, -1, 10**9, [], ["AAPL", "AAPL"]])
def test_impossible_symbols(symbols: int | Sequence[str]) -> None:
    with pytest.raises(ValueError):
        RandomMarket(symbols)


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_time_without_a_zone_is_refused(name: str) -> None:
    naive = datetime(2026, 3, 4)  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        RandomMarket(1, start=naive) if name == "start" else RandomMarket(1, end=naive)


@pytest.fixture(scope="module")
def week() -> list[Bar]:
    start = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    market = RandomMarket(120, seed=7, start=start, end=start + timedelta(days=5))
    return [bar for minute in market.minutes() for bar in minute.bars]


def test_volume_has_the_shape_of_a_trading_day(week: list[Bar]) -> None:
    volumes: Counter[int] = Counter()
    for bar in week:
        volumes[bar.ts.astimezone(NEW_YORK).hour] += int(bar.volume)
    assert volumes[10] > 1.3 * volumes[12] < volumes[15] / 1.3
    assert max(volumes[hour] for hour in (4, 5, 6, 7, 8, 16, 17, 18, 19)) < volumes[12] / 2
    assert all(volumes[hour] for hour in range(4, 20))


def test_some_symbols_are_sparse_and_the_well_known_are_not(week: list[Bar]) -> None:
    regular = Counter(
        bar.symbol for bar in week if time(9, 30) <= bar.ts.astimezone(NEW_YORK).time() < time(16)
    )
    assert regular["AAPL"] == 5 * 390
    assert min(regular.values()) < 5 * 390 * 0.8


def test_prices_move_as_prices_do(week: list[Bar]) -> None:
    ranges = []
    days: dict[tuple[str, date], list[Bar]] = {}
    for bar in week:
        days.setdefault((bar.symbol, bar.ts.astimezone(NEW_YORK).date()), []).append(bar)
    for bars in days.values():
        high, low = max(bar.high for bar in bars), min(bar.low for bar in bars)
        ranges.append(float(high) / float(low) - 1)
    assert 0.01 < mean(ranges) < 0.10
    assert max(ranges) < 0.6


def test_dojis_and_morning_breakouts_arise(week: list[Bar]) -> None:
    dojis = sum(
        float(bar.high) - float(bar.low) >= 0.01
        and abs(float(bar.close) - float(bar.open)) <= 0.1 * (float(bar.high) - float(bar.low))
        for bar in week
    )
    assert 0.01 < dojis / len(week) < 0.25
    by_symbol: dict[str, list[Bar]] = {}
    for bar in week:
        by_symbol.setdefault(bar.symbol, []).append(bar)
    breakouts = [sum(map(int, morning_breakouts(bars))) for bars in by_symbol.values()]
    assert sum(breakouts) > 5 * len(breakouts)
    assert sum(breakouts) < 0.05 * 5 * 150 * len(breakouts)


def morning_breakouts(bars: list[Bar]) -> list[bool]:
    """Close beyond the 20 bars before, on 1.5 times the mean volume of 50, before noon."""
    found = []
    for index in range(50, len(bars)):
        bar, last20, last50 = bars[index], bars[index - 20 : index], bars[index - 50 : index]
        found.append(
            time(9, 30) <= bar.ts.astimezone(NEW_YORK).time() < time(12)
            and (
                bar.close > max(other.high for other in last20)
                or bar.close < min(other.low for other in last20)
            )
            and bar.volume > 1.5 * mean(float(other.volume) for other in last50)
        )
    return found
