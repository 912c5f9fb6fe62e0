"""Minute bars made of seconds and of trades are those of the channel AM."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar
from tickstock.db.connection import fetch_value
from tickstock.simulator import Faults, RandomMarket, Simulator

from .hand_fed import OPENING, Event, bar, hand_fed
from .program import DEADLINE, KEY, await_connected, eventually, run, running, until

Key = tuple[str, datetime]
MINUTE = timedelta(minutes=1)
DISTURBED = {"late": 0.002, "duplicate": 0.002, "out_of_order": 0.002, "garbage": 0.1}
STORED = "select symbol, ts, open, high, low, close, volume from ohlcv_1min"


def market(minutes: int) -> RandomMarket:
    # From before the opening on: Form T counts there, and not after it.
    start = OPENING - timedelta(minutes=10)
    return RandomMarket(12, seed=9, start=start, end=start + timedelta(minutes=minutes))


def stored(conn: Connection[TupleRow]) -> dict[Key, tuple[float, ...]]:
    return {
        (row[0], row[1].astimezone(UTC)): tuple(map(float, row[2:])) for row in conn.execute(STORED)
    }


def wanted(bars: dict[Key, Bar], keep: Callable[[datetime], bool]) -> dict[Key, tuple[float, ...]]:
    return {key: tuple(map(float, bar[2:7])) for key, bar in bars.items() if keep(key[1])}


@pytest.mark.parametrize("channel", ["A", "T"])
def test_bars_made_live_are_those_of_the_market(
    url: str, conn: Connection[TupleRow], channel: str
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY, "TICKSTOCK_CHANNEL": channel}
    faults = Faults(DISTURBED, seed=3)
    arguments = ("ingest", "--symbols", "*", "--feed-url")
    with (
        Simulator(market(45), keys=[KEY], closes=True, speed=0, faults=faults) as simulator,
        running(*arguments, simulator.url, **settings) as ingest,
    ):
        assert simulator.finished.wait(DEADLINE)
        truth = simulator.truth()
        first, last = min(ts for _, ts in truth), max(ts for _, ts in truth)
        # The minute of the subscription was seen in part, the last one is not known to be over.
        bars = wanted(truth, lambda ts: first < ts < last)
        eventually(lambda: stored(conn) == bars, "the bars are those of the market")
        assert ingest.stop() == 0
    assert faults.counts.keys() == DISTURBED.keys()
    assert stored(conn) == bars
    assert fetch_value(conn, "select channel from feed_stretches") == channel
    if channel == "T":
        trades = {
            (row[0], row[1].astimezone(UTC)): row[2]
            for row in conn.execute("select symbol, ts, trades from ohlcv_1min")
        }
        assert trades == {key: bar.trades for key, bar in truth.items() if key in bars}


@pytest.mark.parametrize("channel", ["A", "T"])
def test_what_was_seen_in_part_is_owed_and_filled(
    url: str, conn: Connection[TupleRow], channel: str
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    faults = Faults(DISTURBED, seed=4)
    with Simulator(market(70), keys=[KEY], closes=True, speed=600, faults=faults) as simulator:
        settings |= {"TICKSTOCK_FEED_URL": simulator.url, "TICKSTOCK_REST_URL": simulator.rest_url}
        with running("ingest", "--symbols", "*", "--channel", channel, **settings) as ingest:
            eventually(lambda: (simulator.clock or OPENING) > OPENING, "minutes pass")
            simulator.inject("drop")
            until(url, "select count(*) from feed_stretches where bars > 0", 2)
            assert simulator.finished.wait(DEADLINE)
            assert ingest.stop() == 0
        done = run("backfill", **settings)
        assert "nothing is owed" in done.stdout, done.stdout + done.stderr
        truth = simulator.truth()
    reached = fetch_value(conn, "select max(latest) from feed_stretches")
    assert reached > max(ts for _, ts in truth) - 3 * MINUTE
    found = {key: bar for key, bar in stored(conn).items() if key[1] <= reached}
    first = min(ts for _, ts in truth)  # nothing is promised before the first bar
    assert found == wanted(truth, lambda ts: first < ts <= reached)


def test_each_trade_is_kept_once(url: str, conn: Connection[TupleRow]) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    arguments = ("ingest", "--symbols", "*", "--channel", "T", "--store-ticks")
    first = trade("A\\B", 5, 1, i='x\\"1', x=4, z=3, trfi=202, trft=trade_time(5) - 7, c=[12, 37])
    plain = trade("B", 6, 1, p=1.25, s=100, ds="100.5")
    future = {**trade("C", 0, 1), "t": 4_102_444_800_000}
    with hand_fed() as feed, running(*arguments, "--feed-url", feed.url, **settings) as ingest:
        feed.send(first, plain, future, plain)
        until(url, "select count(*) from ticks", 2)
        feed.send(first, trade("B", 6, 2))
        until(url, "select count(*) from ticks", 3)
        assert ingest.stop() == 0
    rows = conn.execute(
        "select symbol, ts, sequence, price, size, conditions, exchange, trade_id, tape, trf, trf_ts"
        " from ticks order by symbol, sequence limit 2"
    ).fetchall()
    assert [tuple(map(str, row)) for row in rows] == [
        ("A\\B", stamp(5), "1", "10.5", "7", "[12, 37]", "4", 'x\\"1', "3", "202", stamp(5, -7)),
        ("B", stamp(6), "1", "1.25", "100.5", "[]", *["None"] * 5),
    ]  # fmt: skip
    refused = conn.execute("select reason, payload from refused_bars").fetchall()
    assert len(refused) == 1
    assert "a day in the future" in refused[0][0]


def test_a_bar_that_came_counts_and_one_that_was_made_does_where_none_came(
    url: str, conn: Connection[TupleRow]
) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    arguments = ("ingest", "--symbols", "A,B,C", "--channel", "AM", "--channel", "T")
    with hand_fed() as feed, running(*arguments, "--feed-url", feed.url, **settings) as ingest:
        feed.send(trade("A", 0, 1), trade("A", 60, 2))
        # Made first, then the bar comes; and the other way round.
        feed.send(trade("A", 61, 3, p=9), trade("B", 62, 1), trade("C", 63, 1, p=3))
        feed.send(bar("B", 1, c=11))
        feed.send(trade("C", 130, 2))
        until(url, "select count(*) from ohlcv_1min", 3)
        feed.send(bar("A", 1, c=11))
        until(url, "select close from ohlcv_1min where symbol = 'A'", 11)
        feed.send(trade("A", 65, 4), trade("B", 65, 4), trade("C", 65, 4), trade("C", 131, 5))
        until(url, "select trades from ohlcv_1min where symbol = 'C'", 2)
        assert ingest.stop() == 0
    rows = conn.execute(
        "select symbol, close::float, volume::int, trades from ohlcv_1min order by 1"
    )
    assert rows.fetchall() == [("A", 11, 101, None), ("B", 11, 101, None), ("C", 10.5, 14, 2)]
    assert fetch_value(conn, "select channel from feed_stretches") == "AM+T"


def test_what_comes_too_late_to_count_is_owed(url: str, conn: Connection[TupleRow]) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    arguments = ("ingest", "--symbols", "*", "--channel", "T")
    hour = [trade("A", 60 * minute, minute + 1) for minute in range(60)]
    with hand_fed() as feed, running(*arguments, "--feed-url", feed.url, **settings) as ingest:
        feed.send(*hour)
        until(url, "select count(*) from ohlcv_1min", 57)
        await_connected(url, "ingest")
        before = conn.execute("select starts, ends from feed_gaps").fetchall()
        feed.send(trade("B", 60 * 30, 1))
        until(url, "select count(*) from feed_gaps where symbol = 'B'", 1)
        assert ingest.stop() == 0
    minute = OPENING + 30 * MINUTE
    assert not any(starts <= minute < ends for starts, ends in before)
    gaps = conn.execute("select starts, ends from feed_gaps where symbol = 'B'").fetchall()
    assert gaps == [(minute, minute + MINUTE)]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--channel", "A", "--channel", "T"), "choose"),
        (("--channel", "A", "--store-ticks"), "add --channel T"),
        (("--channel", "Q"), "'Q' is not one of"),
    ],
)
def test_channels_that_make_no_sense_are_refused(
    url: str, arguments: tuple[str, ...], says: str
) -> None:
    done = run(
        "ingest", "--symbols", "A", *arguments, TICKSTOCK_DATABASE_URL=url, MASSIVE_API_KEY=KEY
    )
    assert done.returncode == 2
    assert says in done.stderr


def trade_time(second: int) -> int:
    return int(OPENING.timestamp() + second) * 1_000


def stamp(second: int, ms: int = 0) -> str:
    return str(OPENING + timedelta(seconds=second, milliseconds=ms))


def trade(symbol: str, second: int, sequence: int, **fields: Any) -> Event:
    """A T event so many seconds after the opening."""
    return {
        "ev": "T", "sym": symbol, "p": 10.5, "s": 7, "t": trade_time(second), "q": sequence, **fields
    }  # fmt: skip
