"""The watchdog knows the hour by the feed's clock, not by the one on the wall."""

from datetime import UTC, date, datetime, timedelta

import pytest

from tickstock.feed.watchdog import LONGEST, Watchdog

OPENING = datetime(2025, 11, 25, 14, 30, tzinfo=UTC)
"""A Tuesday; the next session, the day before Thanksgiving's half day, is not here."""
CLOSE = OPENING + timedelta(hours=6.5)
HOUR = timedelta(hours=1)


class Clock:
    """The monotonic clock, as a test sets it."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tickstock.feed.watchdog.time.monotonic", clock.monotonic)
    return clock


@pytest.mark.parametrize(
    ("feed_time", "patience"),
    [
        (datetime(2025, 11, 23, 15, 30, tzinfo=UTC), None),  # a Sunday
        (OPENING - HOUR, None),
        (OPENING + timedelta(seconds=59), None),  # the first bar is not due yet
        (OPENING + timedelta(seconds=60), 60.0),
        (OPENING + HOUR, 60.0),
        (CLOSE - timedelta(seconds=1), 60.0),
        (CLOSE, None),
    ],
)
@pytest.mark.usefixtures("clock")
def test_only_a_regular_session_is_never_silent(
    feed_time: datetime, patience: float | None
) -> None:
    dog = Watchdog([(OPENING, CLOSE)], patience=60.0)
    dog.heard(feed_time)
    assert dog.patience() == patience


@pytest.mark.usefixtures("clock")
def test_before_its_first_bar_a_delayed_feed_is_as_late_as_it_says() -> None:
    now = datetime.now(UTC)
    opening = now - timedelta(minutes=10)
    sessions = [(opening, opening + 6 * HOUR)]
    assert Watchdog(sessions, patience=60.0).patience() == 60.0
    dog = Watchdog(sessions, patience=60.0, delay=timedelta(minutes=15))
    assert dog.patience() is None
    dog.heard(now)
    assert dog.patience() == 60.0


def test_time_goes_on_while_the_feed_is_silent(clock: Clock) -> None:
    dog = Watchdog([(OPENING, CLOSE)], patience=60.0)
    dog.heard(OPENING - HOUR)
    clock.seconds += 3_700
    assert dog.patience() == 60.0
    clock.seconds += 6.5 * 3_600
    assert dog.patience() is None


def test_a_late_bar_does_not_put_the_clock_back(clock: Clock) -> None:
    """Corrections of the day come in the evening, when nothing else does."""
    dog = Watchdog([(OPENING, CLOSE)], patience=60.0)
    dog.heard(CLOSE + HOUR)
    dog.heard(OPENING + HOUR)
    assert dog.patience() is None
    dog = Watchdog([(OPENING, CLOSE)], patience=60.0)
    dog.heard(OPENING - HOUR)
    clock.seconds += 3_700
    dog.heard(OPENING - 10 * HOUR)
    assert dog.patience() == 60.0


@pytest.mark.usefixtures("clock")
def test_what_is_no_late_bar_does() -> None:
    """A replay that begins again with another day; a wrong bar of a time to come."""
    dog = Watchdog([(OPENING, CLOSE)], patience=60.0)
    dog.heard(CLOSE + 48 * HOUR)
    dog.heard(OPENING + HOUR)
    assert dog.patience() == 60.0
    now = datetime.now(UTC)
    dog = Watchdog([(now - 2 * HOUR, now + HOUR)], patience=60.0)
    dog.heard(now + 5 * HOUR)
    assert dog.patience() == 60.0


@pytest.mark.usefixtures("clock")
def test_patience_grows_with_each_silent_connection_and_returns_with_data() -> None:
    dog = Watchdog([(OPENING, CLOSE)], patience=60.0)
    dog.heard(OPENING + HOUR)
    found = []
    for _ in range(7):
        found.append(dog.patience())
        dog.lost()
    assert found == [60, 120, 240, 480, 960, LONGEST, LONGEST]
    dog.heard(OPENING + HOUR)
    assert dog.patience() == 60


@pytest.mark.parametrize("limit", [60.0, 600.0, 2 * LONGEST])
def test_a_limit_for_symbols_that_seldom_trade_is_kept(clock: Clock, limit: float) -> None:
    """Their silence before the opening is none of the session, and a reconnect makes nobody impatient."""
    dog = Watchdog([(OPENING, CLOSE)], patience=limit)
    dog.heard(OPENING - HOUR)
    clock.seconds += 3_600 + limit - 1
    assert dog.patience() is None
    clock.seconds += 1
    assert dog.patience() == limit
    dog.lost()
    assert dog.patience() == max(limit, min(LONGEST, 2 * limit))


def test_before_the_first_bar_the_clock_on_the_wall_must_do() -> None:
    always = (
        datetime.combine(date.min, datetime.min.time(), UTC),
        datetime.max.replace(tzinfo=UTC),
    )
    assert Watchdog([always], patience=5.0).patience() == 5.0
    assert Watchdog([], patience=5.0).patience() is None
