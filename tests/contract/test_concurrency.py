"""Exact in every snapshot, whoever writes and refreshes meanwhile; writers with rollbacks included."""

import os
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tickstock.db.connection import connect

SNAPSHOTS = int(os.environ.get("TICKSTOCK_TEST_SNAPSHOTS", "40"))
WRITERS, REFRESHERS = 4, 2
SYMBOLS = ("A", "B", "C", "D")
FROM = "2025-11-27 22:00 America/New_York"  # until the half day's afternoon

UPSERT = f"""
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap)
select %(symbol)s, timestamptz '{FROM}' + (%(at)s + i) * interval '1 minute',
       %(v)s + i, %(v)s + i + 5, 0.5, %(v)s + i, %(v)s, 1
from generate_series(0, %(minutes)s) i
on conflict (symbol, ts) do update set open = excluded.open, high = excluded.high,
  close = excluded.close, volume = excluded.volume
"""
RANGE = f"""
symbol = %(symbol)s and ts >= timestamptz '{FROM}' + %(at)s * interval '1 minute'
and ts < timestamptz '{FROM}' + (%(at)s + %(minutes)s) * interval '1 minute'
"""
UPDATE = f"update ohlcv_1min set close = high, volume = volume + 1 where {RANGE}"
DELETE = f"delete from ohlcv_1min where {RANGE}"


class Crowd:
    """Threads, each with a connection and a random generator, until `stop`; their errors count."""

    def __init__(self, url: str) -> None:
        self.stop = threading.Event()
        self.done: dict[str, int] = {}
        self.errors: list[BaseException] = []
        self._url = url
        self._threads: list[threading.Thread] = []

    def add(self, work: Callable[[Connection[TupleRow], random.Random], str]) -> None:
        seed = len(self._threads)
        self._threads.append(
            threading.Thread(target=self._run, args=(work, random.Random(seed)), daemon=True)
        )
        self._threads[-1].start()

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _run(
        self, work: Callable[[Connection[TupleRow], random.Random], str], rng: random.Random
    ) -> None:
        with connect(self._url, program="crowd") as conn:
            while not self.stop.is_set():
                try:
                    what = work(conn, rng)
                except psycopg.errors.DeadlockDetected:
                    what = "deadlock"
                except BaseException as error:
                    self.errors.append(error)
                    return
                self.done[what] = self.done.get(what, 0) + 1


def write(conn: Connection[TupleRow], rng: random.Random) -> str:
    """A transaction of a few statements; one in ten is rolled back."""
    with conn.transaction() as transaction:
        for _ in range(rng.randint(1, 3)):
            run = {
                "symbol": rng.choice(SYMBOLS),
                "at": rng.randint(0, 1100),
                "minutes": rng.randint(1, 40),
                "v": rng.randint(1, 1000),
            }
            conn.execute(rng.choices((UPSERT, UPDATE, DELETE), (6, 2, 2))[0], run)
        if rng.random() < 0.1:
            raise psycopg.Rollback(transaction)
    return "write"


def refresh(conn: Connection[TupleRow], rng: random.Random) -> str:
    conn.execute("call ohlcv_refresh()")
    return "refresh"


def test_every_snapshot_is_exact(url: str) -> None:
    with ExitStack() as stack:
        crowd = Crowd(url)
        stack.callback(crowd.join)
        for _ in range(WRITERS):
            crowd.add(write)
        for _ in range(REFRESHERS):
            crowd.add(refresh)
        bars = checked = 0
        wrong: list[str] = []
        with connect(url, program="checker") as conn:
            while checked < SNAPSHOTS and not wrong:
                checked += 1
                snapshot = read_snapshot(conn)
                wrong = differences(snapshot)[:3]
                bars += len(snapshot.bars)
    assert crowd.errors == []
    assert wrong == []
    assert min(crowd.done["write"], crowd.done["refresh"], bars) > SNAPSHOTS / 10, crowd.done
