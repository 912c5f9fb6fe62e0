"""Which minute bars are made of what a subscription sends."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from tickstock.feed.frames import Frame, parse_frame
from tickstock.ingest.making import Making, Session

OPENING = datetime(2025, 11, 28, 14, 30, tzinfo=UTC)
"""A half day: its session ends at 13:00 New York."""
CLOSE = OPENING + timedelta(hours=3, minutes=30)
SESSIONS = [(OPENING, CLOSE)]
ACKNOWLEDGED = parse_frame(
    b'[{"ev":"status","status":"success","message":"subscribed to: T.B"}]', OPENING
)


def trades(*each: tuple[str, int], **fields: object) -> Frame:
    """Trades of these symbols, so many seconds after the opening; the second is their sequence."""
    start = int(OPENING.timestamp()) * 1_000
    events = [
        {"ev": "T", "sym": s, "p": 5, "s": 1, "t": start + 1_000 * at, "q": at, **fields}
        for s, at in each
    ]
    return parse_frame(orjson.dumps(events), OPENING)


def made(making: Making) -> set[tuple[str, int]]:
    """Symbols and minutes after the opening of the bars that are ready."""
    return {(bar.symbol, (bar.ts - OPENING).seconds // 60) for bar in making.take().bars}


def begun(*symbols: str) -> Making:
    """Subscribed, and in the second minute of what is complete."""
    making = Making(["T"], SESSIONS)
    making.subscribed(symbols or None)
    making.add(trades(*[(symbol, 70) for symbol in symbols or ("A", "B")]))
    return making


def test_the_minute_of_the_subscription_gives_no_bar_and_the_next_one_does() -> None:
    making = begun()
    making.add(trades(("A", 80), ("A", 125), ("B", 182)))
    assert made(making) == {("A", 2)}


def test_what_an_earlier_process_has_left_begins_in_the_middle_of_a_minute() -> None:
    making = Making(["T"], SESSIONS)
    making.add(trades(("A", 0), ("A", 60), ("A", 125)))
    assert made(making) == {("A", 1)}


def test_a_lost_connection_costs_the_minutes_that_it_touches() -> None:
    making = begun()
    making.add(trades(("A", 125), ("A", 185)))
    making.lost()
    making.subscribed(None)
    making.add(trades(("A", 250), ("A", 310), ("A", 365)))
    assert made(making) == {("A", 2), ("A", 5)}


def test_a_change_of_symbols_costs_those_alone_that_changed() -> None:
    making = begun("A", "B")
    making.add(trades(("A", 125), ("B", 126)))
    making.changed(["A", "C"])
    making.add(trades(("B", 127), ("A", 128), ("C", 130)))
    # B's unsubscription is on its way: this minute is seen in part too.
    making.add(trades(("B", 185), ("A", 186), ("C", 187), ("A", 245)))
    assert made(making) == {("A", 2), ("A", 3), ("C", 3)}


def test_of_a_symbol_that_joins_all_before_was_seen_in_part() -> None:
    """A late trade of a minute before it is not all of that minute."""
    making = begun("A", "B")
    making.add(trades(("A", 125), ("B", 126)))
    making.changed(["A"])
    making.add(trades(("A", 185), ("A", 245), ("A", 305)))
    assert made(making) == {("A", 2), ("A", 3), ("A", 4)}
    making.changed(["A", "B", "C"])
    making.add(trades(("B", 140), ("B", 250), ("C", 130), ("A", 130)))
    making.add(trades(("A", 306), ("B", 307), ("C", 308)))
    making.add(trades(("A", 370), ("B", 371), ("C", 372), ("A", 425)))
    assert made(making) == {("A", 2), ("A", 5), ("A", 6), ("B", 6), ("C", 6)}


def test_a_symbol_is_subscribed_when_the_feed_says_so() -> None:
    making = begun("A")
    making.changed(["A", "B"])
    making.add(trades(("A", 71), ("A", 125)))
    making.add(ACKNOWLEDGED)
    making.add(trades(("B", 130), ("A", 131), ("B", 185), ("A", 186), ("A", 250)))
    assert made(making) == {("A", 2), ("A", 3), ("B", 3)}


@pytest.mark.parametrize(
    ("sessions", "high"),
    [(SESSIONS, 9), (None, 5)],
)
def test_the_calendar_says_which_trades_set_a_price(
    sessions: list[Session] | None, high: int
) -> None:
    making = Making(["T"], sessions)
    after = (CLOSE - OPENING).seconds
    making.add(trades(("A", 0), ("A", after - 60)))
    making.add(trades(("A", after), ("A", after + 2)))
    making.add(trades(("A", after + 1), p=9, c=[12]))
    making.add(trades(("A", after + 62)))
    assert [bar.high for bar in making.take().bars if bar.ts == CLOSE] == [high]


def test_only_the_channel_that_was_asked_for_counts() -> None:
    making = Making(["A"], SESSIONS)
    making.add(trades(("A", 0), ("A", 61), ("A", 125), ("A", 200)))
    assert made(making) == set()
    assert making.made_of == 0
