"""Where times stand below a chart, and what words it says."""

import itertools
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from tickstock.chart import axis, words
from tickstock.chart.series import Candle, Event, Series
from tickstock.chart.terminal import series_chart

NEW_YORK = ZoneInfo("America/New_York")
MINUTE = timedelta(minutes=1)


def candle(ts: datetime, session: str | None = "regular", close: float = 10.5) -> Candle:
    return Candle(ts, 10, 11, 9, close, 1234567, 10.25, session, True)


def sessions(*days: tuple[date, int, int], minutes: int = 5) -> list[Candle]:
    """Candles of so many minutes on these days, from hour to hour."""
    found = []
    for day, begins, ends in days:
        ts = datetime(day.year, day.month, day.day, begins, tzinfo=NEW_YORK)
        while ts.hour < ends:
            found.append(candle(ts, "pre" if ts.hour < 10 else "regular"))
            ts += minutes * MINUTE
    return found


def labels(candles: list[Candle], most: int) -> list[str]:
    return [tick.label for tick in axis.choose(axis.ranked(candles), most)]


BEFORE, HALF = date(2025, 11, 26), date(2025, 11, 28)


def test_days_are_told_first_then_hours_on_the_hour() -> None:
    candles = sessions((BEFORE, 10, 16), (HALF, 10, 13))
    assert labels(candles, 2) == ["Nov 26", "Nov 28"]
    assert labels(candles, 9) == ["Nov 26", "12:00", "14:00", "Nov 28", "12:00"]
    assert labels(candles, 12) == [
        "Nov 26", "11:00", "12:00", "13:00", "14:00", "15:00", "Nov 28", "11:00", "12:00",
    ]  # fmt: skip


def test_labels_are_never_more_or_closer_than_there_is_room_for() -> None:
    candles = sessions((BEFORE, 10, 16), (HALF, 10, 13))
    for most in range(1, 20):
        chosen = axis.choose(axis.ranked(candles), most)
        places = [tick.place for tick in chosen]
        assert 1 <= len(chosen) <= most
        assert all(b - a >= len(candles) / most for a, b in itertools.pairwise(places))


def test_months_and_years_of_daily_candles() -> None:
    midnight = datetime(2025, 11, 3, tzinfo=NEW_YORK)
    candles = [candle(midnight + n * timedelta(days=1)) for n in range(100)]
    assert labels(candles, 4) == ["Dec", "2026", "Feb"]
    assert labels(candles[:10], 9) == ["Nov 3", "Nov 5", "Nov 7", "Nov 10", "Nov 12"]


def test_a_new_year_between_minutes_is_told_by_its_day() -> None:
    candles = sessions((date(2025, 12, 31), 15, 16), (date(2026, 1, 2), 10, 11))
    assert "Jan 2, 2026" in labels(candles, 3)


def test_the_hour_that_comes_twice_is_in_order() -> None:
    ts = datetime(2025, 11, 2, 5, 30, tzinfo=ZoneInfo("UTC"))
    candles = [candle((ts + n * 30 * MINUTE).astimezone(NEW_YORK)) for n in range(4)]
    assert [f"{each.ts:%H:%M}" for each in candles] == ["01:30", "01:00", "01:30", "02:00"]
    assert [tick.place for tick in axis.choose(axis.ranked(candles), 8)] == [0, 1, 2, 3]


def test_hours_outside_the_session_and_days_are_marked_by_their_candles() -> None:
    candles = sessions((BEFORE, 9, 11), (HALF, 9, 11))
    assert axis.outside_hours(candles) == [(0, 11), (24, 35)]
    assert axis.new_days(candles) == [24]
    assert axis.new_days([candle(each.ts) for each in candles[::24]]) == [], "days do not mark days"


def test_what_is_said_of_a_candle() -> None:
    ts = datetime(2025, 11, 26, 9, 30, tzinfo=NEW_YORK)
    assert words.candle_lines(candle(ts)) == [
        "Wed 2025-11-26 09:30 New York",
        "O 10.00  H 11.00  L 9.00  C 10.50",
        "Volume 1,234,567  VWAP 10.25",
    ]
    forming = Candle(ts, 0.1234, 0.2, 0.1, 0.15, 0.5, None, "pre", False)
    assert words.candle_lines(forming) == [
        "Wed 2025-11-26 09:30 New York, pre, forming",
        "O 0.1234  H 0.2  L 0.1  C 0.15",
        "Volume 0.5",
    ]


def test_what_is_said_of_a_series() -> None:
    ts = datetime(2025, 11, 26, 9, 30, tzinfo=NEW_YORK)
    made = Series("AAPL", "5min", [candle(ts), candle(ts + 5 * MINUTE, close=11)], [])
    assert words.subheading(made) == (
        "2025-11-26 09:30 to 2025-11-26 09:35, New York time · 2 candles · last 11.00 (+10.00 %)"
    ), "since the first one's open"


def test_the_terminal_tells_the_events_of_what_there_is_room_for() -> None:
    ts = datetime(2025, 11, 26, 9, 30, tzinfo=NEW_YORK)
    candles = [candle(ts + n * MINUTE) for n in range(30)]
    events = [Event(n, f"P{n}", "long", 10.5, 0.5, {}) for n in range(30)]
    events.append(Event(29, "P30", "short", 10.5, 0.5, {}))
    drawn = series_chart(Series("AAPL", "1min", candles, events), width=48, height=8, colors=False)
    lines = drawn.splitlines()
    (signs,) = (line.split() for line in lines if "▲ ▲" in line)
    shown = len(signs)
    assert signs == ["▲"] * (shown - 1) + ["•"]
    assert shown == 20, "two columns each, beside the prices"
    first = next(n for n, line in enumerate(lines) if line.startswith("the latest of"))
    assert lines[first] == "the latest of 21 events:"
    assert [line.split()[3] for line in lines[first + 1 :]] == [f"P{n}," for n in range(21, 31)]


def test_what_is_said_of_an_event() -> None:
    details = {f"n{n}": n / 3 for n in range(10)}
    head, numbers = words.event_lines(Event(0, "Doji", "neutral", 10.5, 0.25, details))
    assert head == "Doji, neutral, strength 0.25, at 10.50"
    assert numbers.startswith("n0 = 0, n1 = 0.333333, ")
    assert numbers.endswith("n7 = 2.33333, …")
    assert len(words.event_lines(Event(0, "Doji", "neutral", 10.5, 0.25, {}))) == 1


def test_volumes_in_short() -> None:
    assert [words.short(each) for each in (0, 0.5, 999, 1000, 8402, 1.5e6, 2e9)] == [
        "0", "0.5", "999", "1k", "8.4k", "1.5M", "2B",
    ]  # fmt: skip
    for size, under, over in ((1e3, "999", "1k"), (1e6, "999k", "1M"), (1e9, "999M", "1B")):
        assert [words.short(share * size) for share in (0.9994, 0.9996)] == [under, over]
