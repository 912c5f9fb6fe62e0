"""Exact in every snapshot, whoever writes, refreshes, drops, compresses and edits the calendar meanwhile.

TICKSTOCK_TEST_SNAPSHOTS: how many snapshots per engine.
"""

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.contract.oracle import (
    COLUMNS,
    OFFICIAL,
    Calendar,
    Snapshot,
    differences,
    read_relations,
    read_snapshot,
)
from tests.e2e.program import until
from tickstock.db.connection import connect, fetch_value

SNAPSHOTS = int(os.environ.get("TICKSTOCK_TEST_SNAPSHOTS", "20"))
WRITERS, REFRESHERS = 4, 2
PLANS = 300
SYMBOLS = ("A", "B", "C", "D")
WEEK = timedelta(days=7)
on_community = pytest.mark.parametrize("engine", ["community"], indirect=True)
# Clocks are put back, a half day's session, the year's last and first.
HOURS = (
    "2025-11-01 23:00 America/New_York",
    "2025-11-28 08:30 America/New_York",
    "2025-12-31 14:30 America/New_York",
    "2026-01-02 07:30 America/New_York",
)
MINUTES = 400
HALF_DAY = date(2025, 11, 28)

UPSERT = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap)
select %(symbol)s, %(begin)s::timestamptz + (%(at)s + i) * interval '1 minute',
       %(v)s + i, %(v)s + i + 5, 0.5, %(v)s + i, %(v)s, 1
from generate_series(0, %(minutes)s) i
on conflict (symbol, ts) do update set open = excluded.open, high = excluded.high,
  close = excluded.close, volume = excluded.volume
"""
RANGE = """
symbol = %(symbol)s and ts >= %(begin)s::timestamptz + %(at)s * interval '1 minute'
and ts < %(begin)s::timestamptz + (%(at)s + %(minutes)s) * interval '1 minute'
"""
UPDATE = f"update ohlcv_1min set close = high, volume = volume + 1 where {RANGE}"
DELETE = f"delete from ohlcv_1min where {RANGE}"
VANISH = "delete from ohlcv_1min where symbol = %(symbol)s and ts > '2025-11-01'"
STATEMENTS, WEIGHTS = (UPSERT, UPDATE, DELETE, VANISH), (60, 20, 18, 2)

Work = Callable[[Connection[TupleRow], random.Random], str]
"""One turn of somebody; returns what it was."""


class Crowd:
    """Threads, each with a connection and a random generator, until `stop`; their errors count."""

    def __init__(self, url: str) -> None:
        self.stop = threading.Event()
        self.done: dict[str, int] = {}
        self.errors: list[BaseException] = []
        self._url = url
        self._threads: list[threading.Thread] = []

    def add(self, work: Work) -> None:
        rng = random.Random(len(self._threads))
        thread = threading.Thread(target=self._run, args=(work, rng), daemon=True)
        self._threads.append(thread)
        thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _run(self, work: Work, rng: random.Random) -> None:
        with connect(self._url, program="crowd") as conn:
            while not self.stop.is_set():
                try:
                    what = work(conn, rng)
                except psycopg.errors.DeadlockDetected:
                    what = f"deadlock of {getattr(work, '__name__', work)}"
                except BaseException as error:
                    self.errors.append(error)
                    return
                self.done[what] = self.done.get(what, 0) + 1


def write(conn: Connection[TupleRow], rng: random.Random) -> str:
    """A transaction of a few statements; one in ten is rolled back."""
    with conn.transaction() as transaction:
        for _ in range(rng.randint(1, 3)):
            statement = rng.choices(STATEMENTS, WEIGHTS)[0]
            conn.execute(statement, some_minutes(rng, rng.choice(HOURS)))
        roll_back_at_times(rng, transaction)
    return "write"


def some_minutes(rng: random.Random, begin: object) -> dict[str, object]:
    return {
        "begin": begin,
        "symbol": rng.choice(SYMBOLS),
        "at": rng.randint(0, MINUTES - 40),
        "minutes": rng.randint(1, 40),
        "v": rng.randint(1, 1000),
    }


def roll_back_at_times(rng: random.Random, transaction: psycopg.Transaction) -> None:
    if rng.random() < 0.1:
        raise psycopg.Rollback(transaction)


def refresh(conn: Connection[TupleRow], rng: random.Random) -> str:
    bulk_symbols = str(rng.choice((1, 100)))  # on community: by half hours, or candle by candle
    conn.execute("select set_config('tickstock.bulk_symbols', %s, false)", (bulk_symbols,))
    conn.execute("call ohlcv_refresh()")
    return "refresh"


def edit_calendar(conn: Connection[TupleRow], rng: random.Random) -> str:
    """A half day, a holiday, a whole day."""
    with conn.transaction():
        conn.execute("delete from trading_days where day = %s", (HALF_DAY,))
        if (hours := rng.choice((None, 13, 16))) is not None:
            conn.execute(
                "insert into trading_days values (%(day)s, (%(day)s + time '09:30') at time zone"
                " 'America/New_York', (%(day)s + make_time(%(hour)s, 0, 0)) at time zone 'America/New_York')",
                {"day": HALF_DAY, "hour": hours},
            )
    return "calendar"


def compress(conn: Connection[TupleRow], rng: random.Random) -> str:
    conn.execute(MOVE)
    return "compress"


class History:
    """The weeks before: late bars come in, then the oldest week is dropped, and its candles stay."""

    BEGIN, WEEKS = datetime(2025, 5, 1, tzinfo=UTC), 26
    """A Thursday, as chunks begin."""

    def __init__(self, conn: Connection[TupleRow]) -> None:
        # A bar that stays as long as its week does.
        conn.execute(
            "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
            " select 'OLD', %s::timestamptz + i * interval '7 days', 1, 1, 1, 1, 1"
            " from generate_series(0, %s) i",
            (self.BEGIN + timedelta(hours=15), self.WEEKS - 1),
        )
        self._dropped: dict[datetime, list[TupleRow]] = {}
        """Weeks that may have been dropped by now, with the bars they had."""

    def turn(self, conn: Connection[TupleRow], rng: random.Random) -> str:
        oldest = self.BEGIN + len(self._dropped) * WEEK
        if rng.random() < 0.05 and len(self._dropped) < self.WEEKS - 2:
            # Nobody else writes there.
            bars = conn.execute(
                f"select {COLUMNS} from ohlcv_1min where ts >= %s and ts < %s",
                (oldest, oldest + WEEK),
            )
            self._dropped[oldest] = bars.fetchall()
            conn.execute("call drop_bars(%s)", (oldest + WEEK,))
            return "drop"
        week = oldest + rng.randrange(self.WEEKS - len(self._dropped)) * WEEK
        with conn.transaction() as transaction:
            tuesday = week + timedelta(days=5, hours=12)
            conn.execute(rng.choices(STATEMENTS, WEIGHTS)[0], some_minutes(rng, tuesday))
            roll_back_at_times(rng, transaction)
        return "late"

    def dropped(self, snapshot: Snapshot) -> list[TupleRow]:
        """Bars whose week is gone in this snapshot."""
        weeks = {week_of(row[1]) for row in snapshot.bars}
        return [
            row for week, bars in self._dropped.copy().items() if week not in weeks for row in bars
        ]


def week_of(ts: datetime) -> datetime:
    return History.BEGIN + (ts - History.BEGIN) // WEEK * WEEK


def check(conn: Connection[TupleRow], history: History, *, sessions: bool) -> list[str]:
    """What is wrong with a snapshot; with the sessions of its candles, which keep the calendar waiting."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        if sessions:
            # They are told by a function, and functions know no snapshots: for a moment after a change of
            # the calendar is committed, other sessions still have the old one. This lock lets none commit.
            conn.execute("lock table only ohlcv_1min in row exclusive mode")
        snapshot = read_relations(conn)
        calendar = read_calendar(conn)
    return differences(snapshot, calendar, history.dropped(snapshot), labelled=sessions)


def read_calendar(conn: Connection[TupleRow]) -> Calendar:
    row = conn.execute(
        "select opens_at, closes_at from trading_days where day = %s", (HALF_DAY,)
    ).fetchone()
    return OFFICIAL.with_day(HALF_DAY, (row[0], row[1]) if row else None)


def test_every_snapshot_is_exact(
    engine: Engine, url: str, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        checker = stack.enter_context(connect(url, program="checker"))
        history = History(checker)
        crowd = Crowd(url)
        stack.callback(crowd.end)
        for _ in range(WRITERS):
            crowd.add(write)
        for _ in range(REFRESHERS):
            crowd.add(refresh)
        crowd.add(history.turn)
        crowd.add(now_and_then(edit_calendar))
        if engine.name == "community":
            crowd.add(now_and_then(compress))
        checked = 0
        wrong: list[str] = []
        while checked < SNAPSHOTS and not wrong and not crowd.errors:
            wrong = check(checker, history, sessions=checked % 2 == 1)
            checked += 1
    assert crowd.errors == []
    assert not wrong, "\n".join(wrong[:5])
    record_property("snapshots", checked)
    record_property("with sessions", checked // 2)
    for what in crowd.done:
        record_property(what, crowd.done[what])


def now_and_then(work: Work) -> Work:
    """In one of fifty turns; the others are short transactions."""

    def turn(conn: Connection[TupleRow], rng: random.Random) -> str:
        if rng.random() < 0.02:
            return work(conn, rng)
        conn.execute("select count(*) from ohlcv_daily where symbol = %s", (rng.choice(SYMBOLS),))
        return "look"

    return turn


LOCK = "perform pg_advisory_xact_lock(hashtext('tickstock.refresh'));"


def remove_the_lock(conn: Connection[TupleRow]) -> None:
    definition = fetch_value(conn, "select pg_get_functiondef('tickstock.refresh_batch'::regproc)")
    assert definition.count(LOCK) == 1
    conn.execute(definition.replace(LOCK, ""))


FILL = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select symbol, ts, 5, 9, 4, 5, 100 from unnest(array['A', 'B']) symbol,
  generate_series(timestamptz '2025-11-03 14:30+00', '2025-11-03 15:29+00', '1 min') ts
"""
CORRECT = "update ohlcv_1min set volume = volume + 1 where symbol = %s and ts = %s"
FIRST_HALF_HOUR, SECOND_HALF_HOUR = "2025-11-03 14:31+00", "2025-11-03 15:01+00"
NEWEST = "select max(id) from tickstock.dirty"
BATCH = "select tickstock.refresh_batch('infinity', %s, 50000)"
"""A turn of ohlcv_refresh()'s loop: takes marks up to this number, and tells how many there were."""
WAITS_FOR = "select wait_event from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "unlocked"])
def test_the_refreshers_lock_is_what_keeps_candles_exact(url: str, locked: bool) -> None:
    """Two refreshers make one candle, each for another half hour of it; without the lock it stays wrong.

    Two that take the same marks are kept apart by the locks of these rows. So this takes a writer whose
    mark has a low number and becomes visible late. The first refresher has looked for marks before. The
    second takes a newer one, of the other half hour, and is slow to commit. The writer commits, and the
    first, in the next turn of its loop, takes that mark and not the newer one. Without the advisory
    lock it makes the candle of the other half hour as it was, waits for the lock on the candle's row,
    and overwrites what the second has made. No mark is left to tell.
    """
    with ExitStack() as stack:
        conn, slow_writer, first, second = (
            stack.enter_context(connect(url, program="test")) for _ in range(4)
        )
        if not locked:
            remove_the_lock(conn)
        conn.execute(FILL)
        conn.execute(BATCH, (fetch_value(conn, NEWEST),))

        slow_writer.execute("begin")
        slow_writer.execute(CORRECT, ("A", FIRST_HALF_HOUR))
        conn.execute(CORRECT, ("B", FIRST_HALF_HOUR))
        seen_by_first = fetch_value(first, NEWEST)
        assert fetch_value(first, BATCH, seen_by_first) == 1
        conn.execute(CORRECT, ("A", SECOND_HALF_HOUR))
        second.execute("begin")
        assert fetch_value(second, BATCH, fetch_value(second, NEWEST)) == 1
        slow_writer.execute("commit")

        with ThreadPoolExecutor() as pool:
            next_turn = pool.submit(fetch_value, first, BATCH, seen_by_first)
            try:
                waits_for = "advisory" if locked else "transactionid"
                until(url, WAITS_FOR, waits_for, first.info.backend_pid)
            finally:
                second.execute("commit")
            assert next_turn.result() == 1

        assert fetch_value(conn, "select count(*) from tickstock.dirty") == 0
        wrong = differences(read_snapshot(conn))
        # What is longer is made of half hours later, after the second's commit.
        assert [each.split(",")[0] for each in wrong] == ([] if locked else ["4hour ('A'"])


MOVE = "call tickstock.to_columnstore('infinity')"
IS_MOVED = "select not tickstock.is_to_move(c::text) from show_chunks('ohlcv_1min') c"
SLEEPS = "select wait_event is not distinct from 'PgSleep' from pg_stat_activity where pid = %s"


@on_community
@pytest.mark.parametrize("changed", [False, True], ids=["as it was", "changed meanwhile"])
def test_older_snapshots_see_a_chunk_as_it_was(url: str, changed: bool) -> None:
    """TimescaleDB shows to every snapshot what it has moved into the columnstore.

    So whoever moves it waits for snapshots from before the last change; and if the chunk has changed
    meanwhile, for which there may be other such snapshots, it stays.
    """
    with ExitStack() as stack:
        conn, reader, later_reader, mover = (
            stack.enter_context(connect(url, program="test")) for _ in range(4)
        )
        conn.execute(FILL)
        conn.execute("call ohlcv_refresh()")
        conn.execute(MOVE)
        take_snapshot(reader)
        conn.execute("delete from ohlcv_1min where symbol = 'A' and ts < '2025-11-03 15:00+00'")
        with ThreadPoolExecutor() as pool:
            moved = pool.submit(mover.execute, MOVE)
            until(url, SLEEPS, True, mover.info.backend_pid)
            take_snapshot(later_reader)
            if changed:
                conn.execute(CORRECT, ("B", FIRST_HALF_HOUR))
            assert differences(read_relations(reader)) == []
            reader.execute("rollback")
            if not changed:
                until(url, IS_MOVED, True)
            assert differences(read_relations(later_reader)) == []
            later_reader.execute("rollback")
            moved.result()
        assert fetch_value(conn, IS_MOVED) is not changed
        conn.execute(MOVE)
        assert fetch_value(conn, IS_MOVED)
        assert differences(read_snapshot(conn)) == []


@on_community
def test_refreshers_that_wait_for_the_columnstore_are_not_waited_for(url: str) -> None:
    """They have older snapshots, but will read by new ones."""
    with ExitStack() as stack:
        conn, mover, refresher = (
            stack.enter_context(connect(url, program="test")) for _ in range(3)
        )
        conn.execute(FILL)
        conn.execute("select pg_advisory_lock(hashtext('tickstock.refresh'))")
        with ThreadPoolExecutor() as pool:
            moved = pool.submit(mover.execute, MOVE)
            until(url, WAITS_FOR, "advisory", mover.info.backend_pid)
            refreshed = pool.submit(refresher.execute, "call ohlcv_refresh()")
            until(url, WAITS_FOR, "advisory", refresher.info.backend_pid)
            conn.execute(CORRECT, ("A", FIRST_HALF_HOUR))
            conn.execute("select pg_advisory_unlock(hashtext('tickstock.refresh'))")
            moved.result(timeout=30)
            refreshed.result(timeout=30)
        assert fetch_value(conn, IS_MOVED)
        assert differences(read_snapshot(conn)) == []


READ_BOTH = "(select count(*) from ohlcv_1min), (select count(*) from tickstock.candles_monthly)"
CHUNKS = """
select format('%%I.%%I', c.chunk_schema, c.chunk_name) from timescaledb_information.chunks c
join tickstock.storage s on s.stored_in = format('%%I.%%I', c.hypertable_schema, c.hypertable_name)::regclass
where s.relation = %s
"""


@on_community
def test_a_plan_made_during_the_first_write_into_the_columnstore_misses_nothing(url: str) -> None:
    """It did, as long as its session lived: TimescaleDB tells plans of the first write into a chunk that was
    moved when it is committed, and those that are just being made not at all.

    The plan is held up by a lock on what it looks at last.
    """
    with ExitStack() as stack:
        conn, reader, holder = (stack.enter_context(connect(url, program="test")) for _ in range(3))
        conn.execute(FILL)
        conn.execute("call ohlcv_refresh()")
        conn.execute(MOVE)
        reader.execute(f"prepare counts as select {READ_BOTH}".encode())
        (monthly,) = conn.execute(CHUNKS, ("ohlcv_monthly",)).fetchone() or ("",)
        holder.execute("begin")
        holder.execute(f"lock table {monthly} in access exclusive mode".encode())
        with ThreadPoolExecutor() as pool:
            planned = pool.submit(reader.execute, "execute counts")
            until(url, WAITS_FOR, "relation", reader.info.backend_pid)
            conn.execute(CORRECT, ("A", FIRST_HALF_HOUR))
            holder.execute("rollback")
            planned.result()
        assert reader.execute("execute counts").fetchone() == (120, 2)


def take_snapshot(conn: Connection[TupleRow]) -> None:
    conn.execute("begin isolation level repeatable read")
    conn.execute("select count(*) from timeframes")


def test_recent_since_may_move_while_a_query_is_planned(url: str) -> None:
    """Each use of a function that returns a constant is replaced by it at a time of its own."""
    stop = threading.Event()

    def move() -> None:
        with connect(url, program="mover") as mover:
            while not stop.is_set():
                for since in ("-infinity", "2025-09-29 15:00+00"):
                    mover.execute(
                        "create or replace function tickstock.recent_since() returns timestamptz"
                        f" language sql stable parallel safe return '{since}'::timestamptz"
                    )

    with connect(url, program="test") as conn, ThreadPoolExecutor() as pool:
        conn.execute(
            "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
            " select 'A', timestamptz '2025-05-01 15:00+00' + i * interval '7 days', 1, 1, 1, 1, 1"
            " from generate_series(0, 25) i"
        )
        moves = pool.submit(move)
        try:
            found = {
                conn.execute("select count(*), sum(bars) from ohlcv_5min", prepare=False).fetchone()
                for _ in range(PLANS)
            }
        finally:
            stop.set()
        moves.result()
    assert found == {(26, 26)}
