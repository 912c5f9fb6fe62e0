"""The whole slice: simulated market, ingest, scan, listen, as processes, on each engine."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow, dict_row

from tests.conftest import Engine
from tickstock.bars import Bar
from tickstock.db.connection import connect
from tickstock.db.writer import Counts
from tickstock.embedded.redis import embedded_redis
from tickstock.simulator import RandomMarket, Simulator

from .channel import Channel
from .program import (
    DEADLINE,
    KEY,
    NOTHING_WAITS,
    await_connected,
    eventually,
    running,
    stop_all,
    until,
)

MARKET = RandomMarket(
    15,
    seed=7,
    start=datetime(2025, 11, 24, 14, 0, tzinfo=UTC),
    end=datetime(2025, 11, 24, 16, 5, tzinfo=UTC),
)
BARS = "select symbol, ts, open, high, low, close, volume, vwap from ohlcv_1min"

Message = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """What one run of the market left behind."""

    sent: dict[tuple[str, datetime], Bar]
    stored: dict[tuple[str, datetime], tuple[Decimal, ...]]
    events: list[dict[str, Any]]
    counts: Counts
    data_channel: list[Message]
    patterns_channel: list[Message]
    notified: list[Message]
    heard_from_redis: list[Message]
    heard_from_postgres: list[Message]


@pytest.fixture(scope="module")
def played(engine: Engine) -> Iterator[Played]:
    """The market played once on this engine."""
    url = engine.clone()
    with ExitStack() as stack:
        redis_url = stack.enter_context(embedded_redis())
        yield _play(url, redis_url, stack)
    engine.drop(url)


def _play(url: str, redis_url: str, stack: ExitStack) -> Played:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with_redis = {**settings, "TICKSTOCK_REDIS_URL": redis_url}
    data = stack.enter_context(Channel(redis_url, "tickstock_data"))
    patterns = stack.enter_context(Channel(redis_url, "tickstock_patterns"))
    conn = stack.enter_context(connect(url, program="test"))
    conn.execute("listen tickstock_patterns")
    simulator = stack.enter_context(Simulator(MARKET, keys=[KEY], speed=0))
    with (
        running("scan", **with_redis) as scan,
        running("listen", "--json", **with_redis) as from_redis,
        running("listen", "--json", **settings) as from_postgres,
    ):
        patterns.await_subscribers(2)
        await_connected(url, "listen")
        with running(
            "ingest", "--symbols", "*", "--feed-url", simulator.url, **with_redis
        ) as ingest:
            assert simulator.finished.wait(DEADLINE)
            until(url, "select count(*) from ohlcv_1min", len(simulator.sent))
            assert ingest.stop() == 0
        until(url, NOTHING_WAITS)
        events = _events(conn)
        number = len(events)
        eventually(lambda: len(from_redis.output) >= number, "Redis tells all events")
        eventually(lambda: len(from_postgres.output) >= number, "Postgres tells all events")
        assert stop_all(scan, from_redis, from_postgres) == [0, 0, 0]
    return Played(
        sent=simulator.sent,
        stored={(row[0], row[1]): row[2:] for row in conn.execute(BARS)},
        events=events,
        counts=ingest.counts,
        data_channel=data.await_messages(len(simulator.sent)),
        patterns_channel=patterns.await_messages(len(events)),
        notified=[json.loads(notice.payload) for notice in conn.notifies(timeout=0)],
        heard_from_redis=[json.loads(line) for line in from_redis.output],
        heard_from_postgres=[json.loads(line) for line in from_postgres.output],
    )


def _events(conn: Connection[TupleRow]) -> list[Message]:
    """The events as they must be told, by change."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "select id, pattern, symbol, ts, direction, timeframe, price, change, strength, late,"
            " retracted_at is not null as retracted from events order by change"
        ).fetchall()
    return [_told(row) for row in rows]


def _told(row: Message) -> Message:
    ts = row.pop("ts")
    return {**row, "timestamp": f"{ts:%Y-%m-%dT%H:%M:%SZ}", "price": float(row["price"])}


def test_every_bar_is_stored_as_it_was_sent(played: Played) -> None:
    assert len(played.sent) > 1_000
    exact = {
        key: tuple(None if number is None else Decimal(str(number)) for number in bar[2:8])
        for key, bar in played.sent.items()
    }
    assert played.stored == exact


def test_every_bar_is_counted_once(played: Played) -> None:
    number = len(played.sent)
    assert played.counts == Counts(received=number, inserted=number)


def test_every_bar_is_forwarded_as_the_design_document_has_it(played: Played) -> None:
    expected = [
        {
            "symbol": bar.symbol,
            "timestamp": f"{bar.ts:%Y-%m-%dT%H:%M:%SZ}",
            "open": bar.open,
            "high": bar.high,
            "low": bar.low,
            "close": bar.close,
            "volume": bar.volume,
        }
        for bar in played.sent.values()
    ]
    assert _sorted(played.data_channel) == _sorted(expected)


def test_events_are_those_that_the_definition_gives(played: Played) -> None:
    """Doji, and in the smallest timeframe, since there the candles are what was sent."""
    found = {
        (event["symbol"], event["timestamp"])
        for event in played.events
        if (event["pattern"], event["timeframe"]) == ("Doji", "1min")
    }
    expected = {
        (symbol, f"{ts:%Y-%m-%dT%H:%M:%SZ}")
        for (symbol, ts), (opened, high, low, close, *_) in played.stored.items()
        if high > low and abs(close - opened) <= (high - low) / 10
    }
    assert found == expected
    assert expected


def test_events_are_found_in_every_timeframe_that_was_completed(played: Played) -> None:
    timeframes = {event["timeframe"] for event in played.events if event["pattern"] == "Doji"}
    assert timeframes >= {"1min", "5min", "15min", "30min"}
    assert timeframes <= {"1min", "5min", "15min", "30min", "1hour"}


@pytest.mark.parametrize(
    "way", ["patterns_channel", "notified", "heard_from_redis", "heard_from_postgres"]
)
def test_every_event_is_told_once_in_order(played: Played, way: str) -> None:
    told = getattr(played, way)
    assert told == played.events


def _sorted(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: (message["symbol"], message["timestamp"]))
