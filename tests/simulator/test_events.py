"""AM events: every documented field, and what accumulates through a day."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickstock.bars import Bar
from tickstock.simulator import Minute, RandomMarket
from tickstock.simulator.events import Encoder, Event, frames, plain

from .client import Event as AmEvent
from .client import as_bar

NEW_YORK = ZoneInfo("America/New_York")
FIELDS = {"ev", "sym", "v", "av", "op", "vw", "o", "c", "h", "l", "a", "z", "s", "e"}


def encode(*minutes: Minute) -> list[AmEvent]:
    encoder = Encoder()
    return [
        event
        for minute in minutes
        for frame in frames(encoder.encode(minute), size=100)
        for event in orjson.loads(frame.payload)
    ]


@pytest.fixture(scope="module")
def two_days() -> list[Minute]:
    """From 07:00 to the next day's 10:00, New York time."""
    start = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
    source = RandomMarket(["AAPL", "SPY", "ZZZZ"], start=start, end=start + timedelta(hours=27))
    return list(source.minutes())


def test_every_field_is_there_and_says_what_the_bar_says(two_days: list[Minute]) -> None:
    events = encode(*two_days)
    bars = [bar for minute in two_days for bar in minute.bars]
    assert len(events) == len(bars) > 1_000
    for event, bar in zip(events, bars, strict=True):
        assert set(event) == FIELDS
        assert event["ev"] == "AM"
        assert as_bar(event) == bar._replace(trades=None)
        assert event["e"] - event["s"] == 60_000
        assert bar.trades
        assert event["z"] == round(bar.volume / bar.trades)


@pytest.mark.parametrize("symbol", ["AAPL", "SPY", "ZZZZ"])
def test_what_accumulates_begins_anew_each_new_york_day(
    two_days: list[Minute], symbol: str
) -> None:
    days: dict[date, list[AmEvent]] = {}
    for event in encode(*two_days):
        if event["sym"] == symbol:
            days.setdefault(local_time(event).date(), []).append(event)
    assert len(days) == 2
    for day in days.values():
        for number in [*range(0, len(day), 37), len(day) - 1]:
            event, so_far = day[number], day[: number + 1]
            regular = [e for e in so_far if local_time(e).time() >= time(9, 30)]
            turnover = sum(Decimal(str(e["vw"])) * e["v"] for e in so_far)
            assert event["av"] == sum(e["v"] for e in so_far)
            assert event["op"] == (regular or so_far)[0]["o"]
            assert event["a"] == pytest.approx(float(turnover / event["av"]), abs=6e-5)


def local_time(event: AmEvent) -> datetime:
    return datetime.fromtimestamp(event["s"] / 1000, NEW_YORK)


def test_what_a_bar_does_not_tell_is_absent() -> None:
    ts = datetime(2013, 10, 7, 13, 30, tzinfo=UTC)
    bar = Bar("SPY", ts, Decimal("167.42"), Decimal("168"), Decimal("167.4"), 168, Decimal("0.5"))
    (event,) = encode(Minute(ts, [bar]))
    assert event == {
        "ev": "AM",
        "sym": "SPY",
        "v": 0.5,
        "av": 0.5,
        "op": 167.42,
        "o": 167.42,
        "c": 168,
        "h": 168,
        "l": 167.4,
        "s": 1381152600000,
        "e": 1381152660000,
    }


def test_a_day_without_volume_has_no_vwap() -> None:
    ts = datetime(2013, 10, 7, 13, 30, tzinfo=UTC)
    (event,) = encode(Minute(ts, [Bar("SPY", ts, 1.0, 1.0, 1.0, 1.0, 0, 1.0, 1)]))
    assert "a" not in event
    assert event["vw"] == 1.0


def test_fractional_volumes_add_up_without_a_tail() -> None:
    ts = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)
    bar = Bar("SPY", ts, 1.0, 1.0, 1.0, 1.0, 0.1, 1.0, 1)
    events = encode(*[Minute(ts, [bar])] * 30)
    assert [event["av"] for event in events] == [number / 10 for number in range(1, 31)]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=0, max_value=10**7))
def test_a_plain_number_is_the_decimal(number: Decimal) -> None:
    assert Decimal(str(plain(number))) == number
    assert isinstance(plain(number), int) == (number % 1 == 0)


@given(st.integers(0, 500), st.integers(1, 120))
def test_frames_hold_all_events_in_order_and_no_more_than_allowed(number: int, size: int) -> None:
    ts = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)
    events = [Event({"n": n}, Bar(str(n), ts, 1, 1, 1, 1, 1)) for n in range(number)]
    made = list(frames(events, size))
    contents = [[event["n"] for event in orjson.loads(frame.payload)] for frame in made]
    assert [n for content in contents for n in content] == list(range(number))
    assert [[int(bar.symbol) for bar in frame.bars] for frame in made] == contents
    assert all(len(content) == size for content in islice(contents, max(0, len(made) - 1)))
    assert all(0 < len(content) <= size for content in contents)
