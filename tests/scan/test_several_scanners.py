"""Several scanners that fail and die while bars come in: as if one of them had done it all."""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.scan.oracle import candles_of
from tests.scan.support import (
    WAITING,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    terminate,
    write,
)
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.errors import DatabaseUnavailableError
from tickstock.patterns import Pattern
from tickstock.scan.judge import Judged
from tickstock.scan.record import Recorded
from tickstock.scan.scanner import Scanner
from tickstock.scan.windows import at
from tickstock.simulator import RandomMarket
from tickstock.timeframes import TIMEFRAMES

CUTS = 12
EVENTS = "select pattern, symbol, timeframe, ts, direction, price, details from events"


class MishapError(Exception):
    """What goes wrong after everything went well."""


def market() -> list[list[Bar]]:
    """The bars of some minutes around the opening, and one bar when all is over."""
    bars = RandomMarket(
        12, seed=3, start=new_york("2025-11-24 09:21"), end=new_york("2025-11-24 10:02")
    ).minutes()
    end = bar("CLOCK", new_york("2025-12-31 17:31"))
    return [*(minute.bars for minute in bars if minute.bars), [end]]


def summing() -> Pattern:
    """Fires on every candle, and tells what the window was."""
    return firing(
        "Sum",
        lambda c: c.close[-1] > 0,
        timeframes=TIMEFRAMES,
        candles=6,
        details=lambda c: {
            "candles": (~np.isnan(c.close)).sum(axis=0).astype(np.float64),
            "high": np.nanmax(c.high, axis=0),
            "low": np.nanmin(c.low, axis=0),
        },
    )


class SeeingScanner(Scanner):
    """Keeps which candles its last scan has judged."""

    def __init__(self, beside: Scanner | None = None) -> None:
        super().__init__([summing()], beside=beside)
        self.seen: list[tuple[str, str, datetime]] = []

    def _record(self, conn: Connection[TupleRow], judged: Sequence[Judged]) -> Recorded:
        self.seen = [
            (each.timeframe, symbol, at(ts)) for each in judged for symbol, ts in each.each()
        ]
        return super()._record(conn, judged)


class Scanning(threading.Thread):
    """Scans until told that there is no more to come; fails, and is cut off, now and then.

    Which candles its committed transactions have scanned is written down by these transactions.
    """

    def __init__(self, url: str, seed: int, done: threading.Event, beside: Scanner | None) -> None:
        super().__init__(name=f"scanner {seed}")
        self.mishaps = self.cuts = 0
        self.failure: Exception | None = None
        self._url = url
        self._rng = random.Random(seed)
        self._done = done
        self._beside = beside

    def run(self) -> None:
        try:
            while not self._work():
                self.cuts += 1
        except Exception as error:
            self.failure = error

    def _work(self) -> bool:
        """Whether all is done; else the connection is lost."""
        scanner = SeeingScanner(self._beside)
        try:
            with connect(self._url, program="scan") as conn:
                conn.execute("select pg_advisory_lock_shared(hashtext('tickstock.scanners'))")
                while True:
                    last_look = self._done.is_set()
                    try:
                        taken = self._scan(conn, scanner)
                        if last_look and not taken and fetch_value(conn, WAITING) == 0:
                            return True
                    except MishapError:
                        self.mishaps += 1
        except (
            psycopg.OperationalError,
            DatabaseUnavailableError,
        ):  # cut off at work, or as it came
            return False

    def _scan(self, conn: Connection[TupleRow], scanner: SeeingScanner) -> int:
        with conn.transaction():
            taken = scanner.scan(conn, most=self._rng.randint(1, 40)).candles
            with conn.cursor() as cursor:
                seen = scanner.seen if taken else []
                cursor.executemany("insert into takes values (%s, %s, %s)", seen)
            if taken and self._rng.random() < 0.4:
                raise MishapError
        return taken


def test_nothing_is_lost_and_nothing_twice(url: str, engine: Engine) -> None:
    minutes = market()
    done = threading.Event()
    # Two of one program, which share what they know, and two others.
    program = SeeingScanner()
    besides = (None, None, program, program)
    scanners = [Scanning(url, seed, done, beside) for seed, beside in enumerate(besides)]
    rng = random.Random(0)
    with connect(url, program="test") as conn:
        conn.execute("create table takes (timeframe text, symbol text, ts timestamptz)")
        for scanner in scanners:
            scanner.start()
        for number, bars in enumerate(minutes):
            write(conn, *bars)
            if rng.random() < CUTS / len(minutes) or number == len(minutes) // 2:
                terminate(conn, "scan")
        done.set()
        for scanner in scanners:
            scanner.join(60)
        assert [scanner.failure for scanner in scanners] == [None] * len(besides)
        assert not any(scanner.is_alive() for scanner in scanners)
        assert sum(scanner.mishaps for scanner in scanners) > 5
        assert sum(scanner.cuts for scanner in scanners) > 5

        assert not fetch_value(
            conn, "select count(*) from tickstock.scan_queue where symbols <> '{CLOCK}'"
        )
        events = conn.execute(EVENTS).fetchall()
        takes = Counter(conn.execute("select * from takes").fetchall())
    every = candles_of([bar for bars in minutes for bar in bars])
    complete = {tuple(c) for c in every if c.symbol != "CLOCK" or c.timeframe == "1min"}
    assert set(takes) == complete
    assert len(events) == len(complete)
    assert sorted(events, key=str) == sorted(events_of_one_scanner(engine, minutes), key=str)


def events_of_one_scanner(engine: Engine, minutes: list[list[Bar]]) -> list[TupleRow]:
    """All bars first, then one scanner to which nothing happens."""
    url = engine.clone()
    try:
        with connect(url, program="test") as conn:
            write(conn, *(bar for bars in minutes for bar in bars))
            drain(conn, Scanner([summing()]))
            return conn.execute(EVENTS).fetchall()
    finally:
        engine.drop(url)


def test_scanners_share_what_waits_and_do_not_wait(
    url: str, conn: Connection[TupleRow], engine: Engine
) -> None:
    opening = new_york("2025-11-24 09:30")
    write(conn, *(bar(f"S{n}", opening) for n in range(400)))
    scanner = Scanner([summing()])
    beside = engine.create()
    with (
        connect(url, program="test") as other,
        connect(beside, program="test") as of_another_database,
    ):
        other.execute("set statement_timeout = '5s'")
        for each in (conn, other, of_another_database):
            each.execute("select pg_advisory_lock_shared(hashtext('tickstock.scanners'))")
        with conn.transaction(force_rollback=True):
            taken = len(conn.execute("select tickstock.take_candles(9999)").fetchall())
            assert 160 < taken < 240, "a half, by the shares of the symbols"
            assert drain(other, scanner).candles == 400 - taken
        assert drain(other, scanner).candles == taken, "it gave them back"
    engine.drop(beside)


@on_one_engine
def test_scanners_do_not_make_each_other_fail_whatever_isolation_the_database_has(
    url: str, conn: Connection[TupleRow]
) -> None:
    opening = new_york("2025-11-24 09:30")
    setting = sql.SQL("alter database {} set default_transaction_isolation = 'repeatable read'")
    conn.execute(setting.format(sql.Identifier(conn.info.dbname)))
    scanner = Scanner([summing()])
    with connect(url, program="test") as other, other.transaction():
        other.execute("select feed_clock()")
        write(conn, bar("A", opening))
        drain(conn, Scanner([summing()]))
        write(conn, bar("A", opening + timedelta(minutes=1)))
        assert scanner.scan(other).candles == 1


@on_one_engine
def test_who_takes_little_leaves_the_rest_and_lets_writers_pass(
    url: str, conn: Connection[TupleRow]
) -> None:
    opening = new_york("2025-11-24 09:30")
    bars = [bar(f"S{n}", opening) for n in range(400)]
    write(conn, *bars)
    with connect(url, program="test") as other, conn.transaction(force_rollback=True):
        other.execute("set statement_timeout = '5s'")
        taken = len(conn.execute("select tickstock.take_candles(20)").fetchall())
        assert 20 <= taken < 60, "two or three shares"
        assert drain(other, Scanner([summing()])).candles == 400 - taken
        write(other, *(each._replace(volume=7) for each in bars))
