"""The worker behind `tickstock scan`."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tests.e2e.program import DEADLINE, eventually
from tests.scan.support import bar, new_york, on_one_engine, signalling, terminate, working, write
from tickstock.db.connection import fetch_value
from tickstock.db.upkeep import UpkeepWorker
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.errors import DatabaseUnavailableError, SchemaMissingError
from tickstock.scan import publisher as publisher_module
from tickstock.scan import worker as worker_module
from tickstock.scan.scanner import THREADS, Scanned, Scanner
from tickstock.scan.worker import ScanWorker

OPENING = new_york("2025-11-24 09:30")
MINUTE = timedelta(minutes=1)

EVENTS = "select count(*) from events"
PROMPTLY = 3.0
"""Seconds within which a worker has to end."""

needs_redis = pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")


def await_events(conn: Connection[TupleRow], number: int) -> None:
    eventually(lambda: fetch_value(conn, EVENTS) == number, f"{number} events")


def await_worker(conn: Connection[TupleRow]) -> None:
    listening = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'tickstock scan' and state = 'idle' and query = 'COMMIT'"
    )
    eventually(
        lambda: fetch_value(conn, listening) == THREADS,
        "the worker has scanned and waits",
    )


def test_it_wakes_when_bars_come(
    url: str, conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLL", 10 * DEADLINE)
    with working(url, [signalling()]) as worker:
        await_worker(conn)
        for n in range(3):
            write(conn, bar("AAPL", OPENING + n * MINUTE))
            await_events(conn, n + 1)
        worker.stop.set()
        write(conn, bar("LAST", OPENING))  # wakes it, to see that it is to stop


@on_one_engine
def test_it_finds_what_nobody_told_it_of(url: str, conn: Connection[TupleRow]) -> None:
    with working(url, [signalling()]):
        await_worker(conn)
        with conn.transaction():
            conn.execute("set local tickstock.scan_queue = off")
            write(conn, bar("AAPL", OPENING))
            conn.execute(
                "insert into tickstock.scan_queue (shard, timeframe, ready_at, symbols, starts)"
                " values (tickstock.shard_of('AAPL'), '1min', '-infinity', '{AAPL}', array[%s])",
                (OPENING,),
            )
        await_events(conn, 1)


@on_one_engine
def test_what_waited_for_it_is_scanned_at_once(url: str, conn: Connection[TupleRow]) -> None:
    write(conn, *(bar("AAPL", OPENING + n * MINUTE) for n in range(7)))
    with working(url, [signalling(timeframes=["1min", "5min"])]) as worker:
        await_events(conn, 8)
        eventually(lambda: worker.events == 8, "it has counted them")
    assert worker.summary().endswith(" candles scanned, 8 events")


@on_one_engine
def test_others_leave_it_its_share(url: str, conn: Connection[TupleRow]) -> None:
    with working(url, [signalling()]):
        await_worker(conn)
        with conn.transaction(force_rollback=True):
            write(conn, *(bar(f"S{n}", OPENING) for n in range(400)))
            taken = len(conn.execute("select tickstock.take_candles(9999)").fetchall())
    assert THREADS == 2
    assert 100 < taken < 300, "a half, as its threads are two"


@on_one_engine
def test_it_refreshes_candles_where_no_ingest_does(
    url: str, conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "UpkeepWorker", partial(UpkeepWorker, interval=0.1))
    write(conn, bar("AAPL", OPENING), bar("AAPL", OPENING + 60 * MINUTE))
    marked = "select exists (select from tickstock.dirty where granule = %s)"
    assert fetch_value(conn, marked, OPENING)
    with working(url, [signalling()]):
        eventually(lambda: not fetch_value(conn, marked, OPENING), "the half hour is refreshed")


@needs_redis
def test_it_survives_cut_connections(
    url: str, conn: Connection[TupleRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "POLL", 0.1)
    with embedded_redis() as redis_url, working(url, [signalling()], redis_url):
        for n in range(3):
            write(conn, bar("AAPL", OPENING + n * MINUTE))
            await_events(conn, n + 1)
            eventually(lambda: terminate(conn, "scan") > 0, "it is connected again")
            eventually(lambda: terminate(conn, "publish") == 1, "so is the publisher")
        unpublished = "select events_to_publish from tickstock.freshness"
        eventually(lambda: fetch_value(conn, unpublished) == 0, "all is published")


@contextmanager
def closed(url: str, dbname: str) -> Iterator[None]:
    """The database takes no new connections."""
    alter = "alter database {} with allow_connections {}"
    with psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True) as admin:

        def allow(connections: bool) -> None:
            admin.execute(sql.SQL(alter).format(sql.Identifier(dbname), sql.Literal(connections)))

        allow(False)
        yield
        allow(True)


@on_one_engine
def test_it_survives_a_database_that_is_gone_for_a_while(
    url: str, conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tickstock.scan.worker")
    with working(url, [signalling()]):
        await_worker(conn)
        with closed(url, conn.info.dbname):
            terminate(conn, "scan")
            write(conn, bar("AAPL", OPENING))
            eventually(lambda: "still gone" in caplog.text, "it tries to come back")
        await_events(conn, 1)
    assert caplog.text.count("database gone, will try again") == 1


@on_one_engine
def test_at_the_start_a_missing_database_or_schema_is_an_error(empty_url: str) -> None:
    missing = make_conninfo(empty_url, dbname="no_such_database")
    with pytest.raises(DatabaseUnavailableError):
        ScanWorker(missing, []).run()
    with pytest.raises(SchemaMissingError):
        ScanWorker(empty_url, []).run()


@on_one_engine
def test_it_ends_if_one_of_its_threads_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = ScanWorker(url, [signalling()])
    scan = Scanner.scan

    def failing_in_a_thread(self: Scanner, *arguments: Any, **named: Any) -> Scanned:
        if threading.current_thread() is not threading.main_thread():
            raise LookupError("lost")
        return scan(self, *arguments, **named)

    monkeypatch.setattr(Scanner, "scan", failing_in_a_thread)
    with pytest.raises(LookupError, match="lost"):
        worker.run()


@on_one_engine
def test_it_stops_promptly(url: str, conn: Connection[TupleRow]) -> None:
    with working(url, [signalling()]) as worker:
        await_worker(conn)
        before = time.monotonic()
        worker.stop.set()
    assert time.monotonic() - before < PROMPTLY


@on_one_engine
def test_it_stops_promptly_without_its_redis_too(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    with working(url, [signalling()], f"unix://{tmp_path}/nowhere.sock") as worker:
        write(conn, bar("AAPL", OPENING))
        await_events(conn, 1)
        before = time.monotonic()
        worker.stop.set()
    assert time.monotonic() - before < PROMPTLY
