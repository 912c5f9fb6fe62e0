"""Redis is optional, may come and go, and holds nothing up."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value
from tickstock.embedded.redis import embedded_redis
from tickstock.ingest import forward

from .channel import Channel
from .hand_fed import bars, hand_fed
from .hardship import market
from .program import KEY, Program, eventually, running, stop_all, until

on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

UNPUBLISHED = "select events_to_publish from tickstock.freshness"


@on_one_engine
def test_without_redis_the_log_says_so(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    with (
        hand_fed() as feed,
        running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
        running("scan", **settings) as scan,
    ):
        ingest.await_error("no Redis: bars are not forwarded (set TICKSTOCK_REDIS_URL)")
        scan.await_error("no Redis: events go by NOTIFY alone (set TICKSTOCK_REDIS_URL)")


@on_one_engine
def test_redis_that_is_not_there_holds_up_no_ending(url: str, conn: Connection[TupleRow]) -> None:
    settings = {
        "TICKSTOCK_DATABASE_URL": url,
        "TICKSTOCK_REDIS_URL": "unix:///nowhere/redis.sock?db=0",
        "MASSIVE_API_KEY": KEY,
    }
    with (
        hand_fed() as feed,
        running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
        running("scan", **settings) as scan,
    ):
        feed.send(*bars("A", range(10)))
        ingest.await_error("Redis does not take bars, the table does")
        scan.await_error("Redis does not take events, they wait in the table")
        before = time.monotonic()
        assert stop_all(ingest, scan) == [0, 0]
        assert time.monotonic() - before < 5
    ingest.await_error("10 bars were not forwarded to Redis; the table has them")
    assert fetch_value(conn, "select events_to_publish from tickstock.freshness") >= 10


@on_one_engine
def test_redis_down_at_the_start_and_again_delays_events_and_loses_none(
    url: str, conn: Connection[TupleRow]
) -> None:
    with TemporaryDirectory(prefix="tickstock-") as folder:
        path = Path(folder) / "redis.sock"
        settings = {
            "TICKSTOCK_DATABASE_URL": url,
            "TICKSTOCK_REDIS_URL": f"unix://{path}?db=0",
            "MASSIVE_API_KEY": KEY,
        }
        with (
            hand_fed() as feed,
            running("scan", **settings) as scan,
            running("ingest", "--symbols", "*", "--feed-url", feed.url, **settings) as ingest,
        ):
            published: list[int] = []
            for symbol in ("DOWN", "AGAIN"):
                feed.send(*bars(symbol, range(4)))
                until(url, "select count(*) from events where symbol = %s", 4, symbol)
                assert fetch_value(conn, UNPUBLISHED) == 4
                scan.await_error("Redis does not take events")
                ingest.await_error("Redis does not take bars, the table does")
                with _redis_back(path, scan, ingest) as (data, patterns):
                    forwarded = [message["symbol"] for message in data.await_messages(4)]
                    until(url, UNPUBLISHED, 0)
                    published += [message["id"] for message in patterns.await_messages(4)]
                assert forwarded == [symbol] * 4
            assert stop_all(ingest, scan) == [0, 0]
            assert published == [
                row[0] for row in conn.execute("select id from events order by id")
            ]
        ingest.await_error("Redis takes bars again")
        scan.await_error("Redis takes events again")


@contextmanager
def _redis_back(path: Path, *programs: Program) -> Iterator[tuple[Channel, Channel]]:
    """Redis up for the block. Nothing is published before there is someone to hear it."""
    for program in programs:
        program.send(signal.SIGSTOP)
    with (
        embedded_redis(path) as redis_url,
        Channel(redis_url, "tickstock_data") as data,
        Channel(redis_url, "tickstock_patterns") as patterns,
    ):
        for program in programs:
            program.send(signal.SIGCONT)
        yield data, patterns


def test_of_bars_that_wait_for_redis_the_oldest_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "WAITING_LIMIT", 100)
    monkeypatch.setattr(forward, "RETRY_AFTER", 0.01)
    traded = [minute.bars[0]._replace(symbol="X") for minute in market(1, 300).minutes()]
    with TemporaryDirectory(prefix="tickstock-") as folder:
        path = Path(folder) / "redis.sock"
        forwarder = forward.Forwarder(f"unix://{path}?db=0")
        forwarder.start()
        for begin in range(0, 300, 10):
            forwarder.offer(traded[begin : begin + 10])
        assert 180 <= forwarder.dropped <= 200, "one batch is in the publisher's hands"
        with embedded_redis(path):
            eventually(lambda: forwarder.forwarded + forwarder.dropped == 300, "all is told")
            forwarder.close()
    assert 100 <= forwarder.forwarded <= 120
