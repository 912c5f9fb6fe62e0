"""Ctrl-C and SIGTERM end every command in order; what was received is stored."""

import signal
from datetime import UTC, datetime

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import bar, write
from tickstock.db.connection import fetch_value
from tickstock.db.writer import Counts
from tickstock.embedded.redis import embedded_redis

from .channel import Channel
from .hand_fed import bars, hand_fed
from .program import KEY, await_connected, eventually, running, stop_all, until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
signals = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])

MARKET = ["--port=0", "--symbols=20", "--start=2025-11-24T14:30", "--speed=1200"]
WAITS_FOR_A_LOCK = (
    "select count(*) from pg_stat_activity where datname = current_database()"
    " and application_name = %s and wait_event_type = 'Lock'"
)


@signals
def test_ingest_stores_what_it_has_received_and_ends(
    url: str, conn: Connection[TupleRow], number: signal.Signals
) -> None:
    """The signal comes while the database holds up the writing, so that frames wait in memory."""
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        hand_fed() as feed,
        running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
    ):
        with conn.transaction():
            conn.execute("lock table ohlcv_1min in exclusive mode")
            feed.send(*bars("FIRST", range(10)))
            feed.await_received()
            until(url, WAITS_FOR_A_LOCK, 1, "tickstock ingest")
            for symbol in ("A", "B", "C"):
                feed.send(*bars(symbol, range(300)))
            feed.await_received()
            ingest.send(number)
            ingest.await_error("feed: stopped")
        assert ingest.wait() == 0
    assert ingest.counts == Counts(received=910, inserted=910)
    assert fetch_value(conn, "select count(*) from ohlcv_1min") == 910


@signals
def test_the_whole_pipeline_ends(url: str, number: signal.Signals) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": "simulator"}
    with (
        embedded_redis() as redis_url,
        running("simulate", *MARKET) as simulate,
        running("scan", "--redis-url", redis_url, **settings) as scan,
        running("listen", "--redis-url", redis_url) as from_redis,
        running("listen", **settings) as from_postgres,
    ):
        eventually(lambda: simulate.output, "the simulator tells its address")
        feed_url = simulate.output[0].split()[0]
        with Channel(redis_url, "tickstock_patterns") as channel:
            channel.await_subscribers(2)
        await_connected(url, "listen")
        with running("ingest", "--symbols", "*", "--feed-url", feed_url, **settings) as ingest:
            eventually(lambda: from_redis.output and from_postgres.output, "events are heard")
            programs = (simulate, ingest, scan, from_redis, from_postgres)
            assert stop_all(*programs, number=number) == [0, 0, 0, 0, 0]
    assert simulate.output[-1].endswith(" bars sent\n")
    counts = ingest.counts
    assert counts == Counts(received=counts.received, inserted=counts.received)
    until(url, "select count(*) from ohlcv_1min", counts.received)


@signals
def test_a_scan_of_a_long_history_ends_before_its_symbol_does(
    url: str, conn: Connection[TupleRow], number: signal.Signals
) -> None:
    """It comes while another scanner has the symbol, so within the first of several months."""
    months = [datetime(2025, month, 3, 15, 0, tzinfo=UTC) for month in (2, 6, 10)]
    write(conn, *(bar("A", ts) for ts in months))
    history = ("scan", "--from", "2025-01-02", "--timeframe", "1min")
    with running(*history, TICKSTOCK_DATABASE_URL=url) as scan:
        with conn.transaction():
            conn.execute("select from tickstock.scan_shards for update")
            until(url, WAITS_FOR_A_LOCK, 1, "tickstock scan")
            scan.send(number)
        assert scan.wait() == 1
    assert scan.output == ["1 candle of 1 symbol scanned: 1 event new or changed, 0 retracted\n"]
    assert "stopped before the end: run the same command again" in scan.errors[-1]
