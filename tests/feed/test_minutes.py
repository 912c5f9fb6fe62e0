"""Minutes made of trades and seconds, against pandas; late, repeated, interrupted, forgotten."""

import random
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.feed.oracle import CONDITIONS, MINUTE, Key, by_key, oracle, ts_of
from tickstock.bars import Bar
from tickstock.feed.conditions import effect
from tickstock.feed.minutes import SecondMinutes, Taken, TradeMinutes, regular_hours
from tickstock.ticks import Second, Trade

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# 09:27 in New York: three minutes of pre-market, then the regular session.
START = int(datetime(2026, 3, 4, 14, 27, tzinfo=UTC).timestamp() * 1000)

PRICES = st.integers(9_000, 9_050).map(lambda cents: cents / 100) | st.integers(88, 92)
SIZES = (
    st.integers(0, 3)
    | st.integers(1, 900)
    | st.integers(1, 999).map(lambda part: part / 1000)
    | st.integers(1, 9).map(lambda part: Decimal(part) / 8)
)
MOMENTS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B"]), st.integers(0, 7 * MINUTE - 1), PRICES, SIZES,
        st.lists(st.sampled_from(sorted(CONDITIONS)), max_size=2).map(tuple),
    ),
    max_size=60,
)  # fmt: skip


def numbered(moments: Sequence[tuple[str, int, float, Any, tuple[int, ...]]]) -> list[Trade]:
    """Trades in the order of time, with a sequence that has holes."""
    ordered = sorted(moments, key=lambda moment: moment[1])
    return [
        Trade(symbol, START + at, 1_000 + 7 * number, price, size, conditions)
        for number, (symbol, at, price, size, conditions) in enumerate(ordered)
    ]


@unhurried
@given(MOMENTS)
def test_bars_of_trades_are_those_of_pandas(
    moments: list[tuple[str, int, float, Any, tuple[int, ...]]],
) -> None:
    trades = numbered(moments)
    minutes = TradeMinutes()
    minutes.add(trades)
    taken = minutes.finish()
    assert by_key(taken.bars) == oracle(trades)
    assert len(taken.bars) == len(by_key(taken.bars))
    assert taken.owed == []
    assert [bar.ts for bar in taken.bars] == sorted(bar.ts for bar in taken.bars)


@unhurried
@given(MOMENTS, st.randoms(use_true_random=False), st.integers(1, 12))
def test_late_and_repeated_trades_give_the_bar_again_each_time_as_it_is_known(
    moments: list[tuple[str, int, float, Any, tuple[int, ...]]],
    chance: random.Random,
    batch: int,
) -> None:
    trades = numbered(moments)
    arrival = sorted(
        [*trades, *(trade for trade in trades if chance.random() < 0.3)],
        key=lambda trade: trade.at + chance.choice((0, 0, 500, 90_000, 240_000)),
    )
    minutes = TradeMinutes()
    latest: dict[Key, Bar] = {}
    for begin in range(0, len(arrival), batch):
        minutes.add(arrival[begin : begin + batch])
        bars = minutes.take().bars
        seen = arrival[: begin + batch]
        if minutes.clock is None:
            assert not bars
            continue
        complete = minutes.clock - MINUTE - 1_000
        assert minutes.clock == max(trade.at for trade in seen)
        wanted = {
            key: bar for key, bar in oracle(seen).items() if key[1].timestamp() * 1000 <= complete
        }
        latest |= by_key(bars)
        assert latest == wanted
    latest |= by_key(minutes.finish().bars)
    assert latest == oracle(trades)
    assert minutes.repeated == len(arrival) - len(trades)


@pytest.mark.parametrize("code", [(), (5,)])
def test_of_one_millisecond_the_sequence_tells_which_was_first(code: tuple[int, ...]) -> None:
    """A burst's trades share their time, in whatever order they arrive."""
    burst = [Trade("A", START, number, 10.0 + number, 100, code) for number in range(4)]
    for arrival in permutations(burst):
        minutes = TradeMinutes()
        minutes.add(arrival)
        assert by_key(minutes.finish().bars) == oracle(burst)


@given(st.sampled_from(sorted(CONDITIONS)), st.sampled_from(sorted(CONDITIONS)), st.booleans())
def test_a_no_outweighs_a_yes(one: int, other: int, regular: bool) -> None:
    both = effect((one, other), regular)
    assert both == effect((other, one), regular)
    for code in (one, other):
        alone = effect((code,), regular)
        assert both.volume <= alone.volume
        assert both.rank >= alone.rank


@pytest.mark.parametrize(
    ("local", "regular"),
    [("2026-03-04 09:29", False), ("2026-03-04 09:30", True), ("2026-03-04 15:59", True),
     ("2026-03-04 16:00", False), ("2026-07-01 09:30", True), ("2026-03-07 12:00", False)],
)  # fmt: skip
def test_regular_hours_are_new_yorks(local: str, regular: bool) -> None:
    moment = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("America/New_York"))
    assert regular_hours(moment.astimezone(UTC)) is regular


def test_a_half_day_needs_its_calendar() -> None:
    afternoon = int(datetime(2026, 11, 27, 19, 0, tzinfo=UTC).timestamp() * 1000)
    form_t = Trade("A", afternoon, 1, 10.0, 100, (12,))
    by_the_clock = TradeMinutes()
    by_the_clock.add([form_t])
    assert by_the_clock.finish().bars == []
    informed = TradeMinutes(regular=lambda ts: ts.hour < 18)
    informed.add([form_t])
    assert [bar.close for bar in informed.finish().bars] == [10.0]


def seconds_of(trades: Sequence[Trade]) -> list[Second]:
    """What the feed's A would say of trades without conditions."""
    frame = pd.DataFrame(trades)
    frame["second"] = frame["at"] // 1000 * 1000
    frame["turnover"] = frame["price"] * frame["size"]
    found = []
    for (second, symbol), group in frame.groupby(["second", "symbol"]):
        price, volume = group["price"], int(group["size"].sum())
        found.append(
            Second(
                str(symbol), int(str(second)), price.iloc[0], price.max(), price.min(),
                price.iloc[-1], volume, round(group["turnover"].sum() / volume, 4),
            )
        )  # fmt: skip
    return found


PLAIN = st.tuples(
    st.sampled_from(["A", "B"]), st.integers(0, 4 * MINUTE - 1),
    st.integers(9_000, 9_050).map(lambda cents: cents / 100), st.integers(1, 900), st.just(()),
)  # fmt: skip


@unhurried
@given(st.lists(PLAIN, min_size=1, max_size=80), st.randoms(use_true_random=False))
def test_seconds_add_up_to_the_bars_of_their_trades(
    moments: list[tuple[str, int, float, Any, tuple[int, ...]]], chance: random.Random
) -> None:
    trades = numbered(moments)
    right = seconds_of(trades)
    wrong = [s._replace(high=99, volume=1) for s in right if chance.random() < 0.3]
    late = [s for s in right if any((s.symbol, s.at) == (w.symbol, w.at) for w in wrong)]
    early = [s for s in right if s not in late]
    arrival = sorted(early + wrong, key=lambda s: s.at) + late
    minutes = SecondMinutes()
    found: dict[Key, Bar] = {}
    for second in arrival:
        minutes.add([second])
        found |= by_key(minutes.take().bars)
    found |= by_key(minutes.finish().bars)
    wanted = oracle(trades)
    assert {key: bar[:7] for key, bar in found.items()} == {k: b[:7] for k, b in wanted.items()}
    for key, bar in found.items():
        assert bar.vwap == pytest.approx(wanted[key].vwap, abs=1.01e-4)
        assert bar.trades is None
    minutes.add(right[-1:])
    assert minutes.repeated == 1


def test_a_second_that_came_is_over() -> None:
    minutes = SecondMinutes()
    starts = (0, MINUTE - 1_000, MINUTE)
    minutes.add([Second("A", START + at, 10, 10, 10, 10, 1) for at in starts])
    assert minutes.clock == START + MINUTE + 1_000
    # Without the seconds' vwap there is none.
    assert minutes.take().bars == [Bar("A", ts_of(START), 10, 10, 10, 10, 2)]


def trade(at: int, *, symbol: str = "A", price: float = 10.0, sequence: int | None = None) -> Trade:
    return Trade(symbol, START + at, at if sequence is None else sequence, price, 100)


def test_a_minute_is_given_when_the_clock_has_passed_it_and_again_when_it_changed() -> None:
    minutes = TradeMinutes()
    assert minutes.take() == Taken([], [])
    minutes.add([trade(0), trade(30_000, price=11.0), trade(MINUTE + 999, symbol="B")])
    assert minutes.take().bars == []
    minutes.add([trade(MINUTE + 1_000, symbol="B")])
    (bar,) = minutes.take().bars
    assert (bar.symbol, bar.close, bar.volume, bar.trades) == ("A", 11.0, 200, 2)
    assert minutes.take().bars == []
    minutes.add([trade(40_000, price=9.0)])
    (again,) = minutes.take().bars
    assert (again.ts, again.low, again.close, again.volume) == (bar.ts, 9.0, 9.0, 300)
    minutes.add([trade(40_000, price=9.0)])
    assert minutes.take().bars == []
    assert minutes.repeated == 1


@pytest.mark.parametrize(("dearer", "vwap"), [(1, 10.0), (3, 10.0002), (2, 10.0001)])
def test_a_tie_of_the_vwap_goes_to_the_even_digit(dearer: int, vwap: float) -> None:
    minutes = TradeMinutes()
    minutes.add([trade(0)._replace(size=200 - dearer), trade(1, price=10.01)._replace(size=dearer)])
    assert minutes.finish().bars[0].vwap == vwap


def test_what_is_older_than_the_horizon_is_owed_not_guessed() -> None:
    minutes = TradeMinutes(horizon=3)
    minutes.add([trade(0), trade(2 * MINUTE), trade(4 * MINUTE)])
    minutes.add([trade(MINUTE, sequence=1), trade(30_000), trade(30_001)])
    taken = minutes.take()
    # The forgotten minute had its bar first, and from what came in time.
    assert [(bar.ts, bar.volume) for bar in taken.bars] == [
        (ts_of(START), 100), (ts_of(START + MINUTE), 100), (ts_of(START + 2 * MINUTE), 100),
    ]  # fmt: skip
    assert taken.owed == [("A", ts_of(START))]
    assert minutes.take().owed == []


def test_the_oldest_minute_that_is_kept_may_be_one_that_was_seen_in_part() -> None:
    minutes = TradeMinutes(horizon=3)
    minutes.interrupt()  # joined in the middle of a minute
    minutes.add([trade(100), trade(3 * MINUTE), trade(200), trade(4 * MINUTE), trade(300)])
    taken = minutes.finish()
    assert [bar.ts for bar in taken.bars] == [ts_of(START + n * MINUTE) for n in (3, 4)]
    assert taken.owed == [("A", ts_of(START))]


def test_no_bar_of_a_minute_that_an_interruption_touched() -> None:
    minutes = TradeMinutes()
    minutes.interrupt()  # joined in the middle of a minute
    minutes.add([trade(100), trade(MINUTE + 5), trade(2 * MINUTE), trade(3 * MINUTE + 20_000)])
    minutes.interrupt()
    minutes.add([trade(2 * MINUTE + 50_000)])  # late: it does not tell that data flows again
    minutes.add([trade(5 * MINUTE + 10), trade(6 * MINUTE), trade(7 * MINUTE), trade(1)])
    minutes.add([trade(3 * MINUTE + 1)])
    given = [(bar.ts - ts_of(START)) // timedelta(minutes=1) for bar in minutes.finish().bars]
    assert given == [1, 2, 6, 7]


def test_an_interruption_just_after_a_minute_spoils_that_too() -> None:
    """Its last trades may have been on their way."""
    minutes = TradeMinutes()
    minutes.add([trade(0), trade(MINUTE + 999)])
    minutes.interrupt()
    minutes.add([trade(2 * MINUTE), trade(3 * MINUTE)])
    assert [bar.ts for bar in minutes.finish().bars] == [ts_of(START + 3 * MINUTE)]


def test_an_interruption_within_a_minute_spoils_only_that() -> None:
    minutes = TradeMinutes()
    minutes.add([trade(0), trade(20_000)])
    minutes.interrupt()
    minutes.add([trade(10_000), trade(30_000), trade(MINUTE), trade(2 * MINUTE)])
    assert [bar.ts for bar in minutes.finish().bars] == [
        ts_of(START + MINUTE), ts_of(START + 2 * MINUTE)
    ]  # fmt: skip


def test_symbols_that_join_later_have_their_first_whole_minute() -> None:
    minutes = TradeMinutes()
    minutes.add([trade(0), trade(20_000)])
    minutes.interrupt(["B"])
    minutes.add([trade(21_000), trade(22_000, symbol="B"), trade(MINUTE, symbol="B")])
    found = {(bar.symbol, bar.ts) for bar in minutes.finish().bars}
    assert found == {("A", ts_of(START)), ("B", ts_of(START + MINUTE))}


def test_one_wrong_time_does_no_harm() -> None:
    minutes = TradeMinutes()
    year_9000 = trade(220_000_000_000_000)
    minutes.add([year_9000, trade(0), trade(1), year_9000, trade(2), year_9000, trade(3)])
    minutes.add([trade(2 * MINUTE)])
    assert minutes.implausible == 3
    assert [bar.volume for bar in minutes.take().bars] == [400]
    assert minutes.clock == START + 2 * MINUTE


def test_a_night_is_a_leap_that_the_next_event_confirms() -> None:
    night = 18 * 60 * MINUTE
    minutes = TradeMinutes()
    minutes.add([trade(0), trade(1), trade(night)])
    assert minutes.clock == START + 1
    minutes.add([trade(night + 1)])
    assert [bar.volume for bar in minutes.take().bars] == [200]
    minutes.add([trade(2 * night), trade(2 * night - 1), trade(2 * night + 2 * MINUTE)])
    assert [bar.volume for bar in minutes.take().bars] == [200, 100, 100]
    lonely = TradeMinutes()  # and so it is with one trade a day
    lonely.add([trade(day * 24 * 60 * MINUTE) for day in range(4)])
    assert [bar.volume for bar in lonely.take().bars] == [100, 100]
    assert len(lonely.finish().bars) == 2
    assert lonely.implausible == 0


def test_memory_is_bounded() -> None:
    """Hours of trades take no more than the horizon's minutes."""

    def used(hours: int) -> int:
        minutes = TradeMinutes(horizon=2)
        tracemalloc.start()
        for minute in range(60 * hours):
            minutes.add(
                trade(minute * MINUTE + 10 * n, symbol=f"S{n % 200}", sequence=n)
                for n in range(2_000)
            )
            minutes.take()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(minutes._minutes) <= 4
        return size

    assert used(3) < 4 * (200 * 600 + 2_000 * 8 + 20_000)
