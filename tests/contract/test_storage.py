"""How bars are kept: dropped, while their candles stay; and by columns, where they can be corrected."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.contract.oracle import differences, read_relations, read_snapshot
from tests.e2e.program import until
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.db.migrate import migrate
from tickstock.db.writer import Counts, write_bars

FILL = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select symbol, ts, p, p + 2, p - 1, p + 1, p * 3, p + 0.5, p
from unnest(%(symbols)s::text[]) symbol, generate_series(%(begin)s::timestamptz, %(end)s, %(step)s) ts,
  lateral (select 100 + extract(epoch from ts)::bigint / 60 %% 97 + length(symbol) as p) x
"""
BEGIN, END = datetime(2025, 10, 30, tzinfo=UTC), datetime(2025, 11, 21, 18, 1, tzinfo=UTC)
SINCE = datetime(2025, 11, 6, tzinfo=UTC)
"""A Thursday, as the chunks begin: in the midst of a week and a month, in New York in that of a session
after a regular one, and of a 4hour candle."""
DROP = "call drop_bars('2025-11-09')"
COLUMNS = "(symbol, ts, open, high, low, close, volume)"
LATE = f"insert into ohlcv_1min {COLUMNS} values ('LATE', '2025-11-03 15:00+00', 5, 6, 4, 5, 7)"


def fill(
    conn: Connection[TupleRow],
    symbols: str = "AB",
    begin: datetime = BEGIN,
    end: datetime = END,
    step: timedelta = timedelta(minutes=47),
) -> None:
    conn.execute(
        FILL,
        {"symbols": list(symbols), "begin": begin, "end": end - timedelta(minutes=1), "step": step},
    )


def feed_clock_passes(conn: Connection[TupleRow]) -> None:
    """So that no half hour is forming."""
    conn.execute(f"insert into ohlcv_1min {COLUMNS} values ('NOW', %s, 1, 1, 1, 1, 1)", (END,))


@contextmanager
def in_background(url: str, statement: str) -> Iterator[threading.Thread]:
    """Run the statement on a connection of its own; at the end it must have succeeded."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with connect(url, program="background") as conn:
                conn.execute(statement)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert errors == []


WAITS = """
select exists (select from pg_locks l join pg_stat_activity a using (pid)
               where not l.granted and a.datname = current_database()
                 and a.application_name = 'tickstock background')
"""


# Retention


def test_candles_outlive_their_bars(conn: Connection[TupleRow]) -> None:
    fill(conn)
    conn.execute("call tickstock.to_columnstore('2025-11-10')")
    before = read_snapshot(conn)
    conn.execute(DROP)
    after = read_snapshot(conn)
    dropped = [bar for bar in before.bars if bar[1] < SINCE]
    assert after.bars == [bar for bar in before.bars if bar[1] >= SINCE]
    assert dropped
    assert after.candles == before.candles
    # What reaches over the border follows its later part, and keeps the earlier one.
    conn.execute(
        "update ohlcv_1min set high = high + 50, volume = 1 where symbol = 'A' and ts < '2025-11-08'"
    )
    conn.execute("delete from ohlcv_1min where symbol = 'B'")
    for _ in range(2):
        assert differences(read_snapshot(conn), dropped=dropped) == []
        conn.execute("call ohlcv_refresh()")
        conn.execute("call tickstock.to_columnstore('infinity')")
    conn.execute("truncate ohlcv_1min")
    assert differences(read_snapshot(conn), dropped=dropped) == []


def test_what_is_dropped_is_final(conn: Connection[TupleRow]) -> None:
    fill(conn)
    conn.execute(DROP)
    before = read_snapshot(conn)
    for statement in (
        LATE,
        f"insert into ohlcv_1min {COLUMNS} select 'C', ts, 5, 6, 4, 5, 7 from generate_series("
        "timestamptz '2025-11-05', '2025-11-07', '1 hour') ts",
        "update ohlcv_1min set ts = ts - interval '1 hour' where ts < '2025-11-06 01:00+00'",
    ):
        # TimescaleDB moves no row to another chunk anyway.
        with pytest.raises(
            psycopg.errors.CheckViolation, match=r"before 2025-11-06|violates check"
        ):
            conn.execute(statement)
    for statement in (
        "delete from trading_days where day = '2025-11-05'",
        "update trading_days set closes_at = closes_at - interval '1 hour' where day = '2025-10-31'",
        "insert into trading_days values ('2025-11-02', '2025-11-02 15:00+00', '2025-11-02 16:00+00')",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="before 2025-11-06"):
            conn.execute(statement)
    assert read_snapshot(conn) == before
    bars = [
        Bar("C", ts, 5, 6, 4, 5, 7)
        for ts in (SINCE - timedelta(minutes=1), SINCE, SINCE - timedelta(days=30))
    ]
    written = write_bars(conn, bars, source="test")
    assert written.counts == Counts(received=3, inserted=1, refused=2)
    assert written.refused_rows == {0, 2}
    reasons = conn.execute("select distinct reason, payload::jsonb ->> 'symbol' from refused_bars")
    assert reasons.fetchall() == [
        ("bars before 2025-11-06 00:00:00+00 have been dropped, and their candles are final", "C")
    ]


def test_a_drop_that_is_under_way_or_was_interrupted_loses_no_candle(
    conn: Connection[TupleRow],
) -> None:
    """Final, while the bars are still there."""
    fill(conn)
    feed_clock_passes(conn)
    conn.execute("call ohlcv_refresh()")
    before = read_snapshot(conn)
    conn.execute("select tickstock.set_bars_since(%s)", (SINCE,))
    with pytest.raises(psycopg.errors.CheckViolation, match="before 2025-11-06"):
        conn.execute("update ohlcv_1min set close = high")
    conn.execute("delete from ohlcv_1min where ts < '2025-10-31'")
    if fetch_value(conn, "select tickstock_engine()") == "postgres":
        conn.execute("update ohlcv_1min set ts = ts + interval '90 days' where ts < '2025-11-01'")
        conn.execute("delete from ohlcv_1min where ts > '2025-12-01'")
    assert read_snapshot(conn).candles == before.candles
    conn.execute("call drop_bars('2025-11-01')")  # even this one: to the end that has been set
    after = read_snapshot(conn)
    assert after.bars == [bar for bar in before.bars if bar[1] >= SINCE]
    assert after.candles == before.candles
    conn.execute("select tickstock.set_bars_since('2025-11-13')")
    conn.execute("truncate ohlcv_1min")
    left = read_snapshot(conn).candles["5min"]
    assert left == [
        candle for candle in before.candles["5min"] if candle[1] < SINCE + timedelta(days=7)
    ]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_dropping_waits_for_a_late_bar(url: str, conn: Connection[TupleRow], end: str) -> None:
    fill(conn)
    before = read_snapshot(conn)
    with connect(url, program="writer") as writer:
        writer.execute("begin")
        writer.execute(LATE)
        with in_background(url, DROP):
            until(url, WAITS)
            writer.execute(end)
    after = read_snapshot(conn)
    dropped = [bar for bar in before.bars if bar[1] < SINCE]
    late = [candle for candle in after.candles["daily"] if candle[0] == "LATE"]
    if end == "commit":
        bar = ("LATE", datetime(2025, 11, 3, 15, tzinfo=UTC), 5, 6, 4, 5, 7, None, None)
        dropped.append((*bar, 1, "regular", True))
    assert len(late) == (end == "commit")
    assert differences(after, dropped=dropped) == []


def test_a_batch_that_waits_for_a_drop_is_judged_after_it(
    url: str, conn: Connection[TupleRow]
) -> None:
    fill(conn)
    conn.execute("call ohlcv_refresh()")
    bars = [Bar("C", END, 5, 6, 4, 5, 7), Bar("C", BEGIN, 5, 6, 4, 5, 7)]
    counts: list[Counts] = []

    def write() -> None:
        with connect(url, program="background") as writer:
            counts.append(write_bars(writer, bars, source="test").counts)

    with conn.transaction():
        conn.execute("lock table ohlcv_1min in share row exclusive mode")
        conn.execute("select tickstock.set_bars_since(%s)", (SINCE,))
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        until(url, WAITS)
    thread.join(timeout=60)
    assert counts == [Counts(received=2, inserted=1, refused=1)]


def test_who_still_reads_an_older_snapshot_reads_all_of_it(
    url: str, conn: Connection[TupleRow]
) -> None:
    """In it half hours may be marked whose bars are to go."""
    fill(conn)
    with connect(url, program="reader") as reader:
        reader.execute("begin isolation level repeatable read")
        reader.execute("select count(*) from timeframes")
        with in_background(url, DROP) as dropping:
            until(url, "select tickstock.bars_since() = %s", True, SINCE)
            until(
                url,
                "select count(*) = 1 from pg_stat_activity where datname = current_database()"
                " and application_name = 'tickstock background' and wait_event = 'PgSleep'",
            )
            snapshot = read_relations(reader)
            assert dropping.is_alive()
            reader.execute("commit")
    assert differences(snapshot) == []
    assert min(bar[1] for bar in snapshot.bars) == BEGIN
    assert min(bar[1] for bar in read_snapshot(conn).bars) >= SINCE


def test_bars_are_kept_for_ever_unless_told(conn: Connection[TupleRow]) -> None:
    conn.execute("call ohlcv_keep_house()")  # with nothing in it
    fill(conn)
    count = "select count(*), tickstock.bars_since() = '-infinity' from ohlcv_1min"
    before = conn.execute(count).fetchone()
    conn.execute("call ohlcv_keep_house()")
    assert conn.execute(count).fetchone() == before
    assert before is not None
    assert before[1]


def test_the_policy_goes_by_the_feeds_clock(engine: Engine, conn: Connection[TupleRow]) -> None:
    fill(conn)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("update storage_policy set keep_bars = '13 days'")
    conn.execute("update storage_policy set keep_bars = '14 days', columnstore_after = '8 days'")
    before = read_snapshot(conn)
    for _ in range(2):
        conn.execute("call ohlcv_keep_house()")
        after = read_snapshot(conn)
        # 14 days before the last bar is the 7th of November 2025.
        assert after.bars == [bar for bar in before.bars if bar[1] >= SINCE]
        assert after.candles == before.candles
        moved = fetch_value(conn, "select count(*) from tickstock.columnstore")
        assert bool(moved) == (engine.name == "community")
    assert fetch_value(conn, "select bars_since from tickstock.freshness") == SINCE


def test_a_bar_of_a_far_future_sweeps_nothing_away(conn: Connection[TupleRow]) -> None:
    conn.execute(
        f"insert into ohlcv_1min {COLUMNS} select 'A', ts, 1, 1, 1, 1, 1 from unnest(array["
        "date_trunc('minute', now()) - interval '1 day', '2099-01-05 15:00+00']) ts"
    )
    conn.execute("update storage_policy set keep_bars = '14 days'")
    conn.execute("call ohlcv_keep_house()")
    assert fetch_value(conn, "select count(*) from ohlcv_1min") == 2


@pytest.mark.parametrize("column", ["keep_bars", "columnstore_after"])
def test_for_ever_is_null(conn: Connection[TupleRow], column: str) -> None:
    """What is older than time can't be kept house of, and programs read infinity as nothing."""
    fill(conn)
    update = sql.SQL("update storage_policy set {} = %s").format(sql.Identifier(column))
    for age in ("infinity", "9999 years", "1000 years"):
        # Before version 17 no interval is infinite.
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidDatetimeFormat)):
            conn.execute(update, (age,))
    conn.execute(update, ("999 years",))
    before = read_snapshot(conn)
    conn.execute("call ohlcv_keep_house()")
    assert read_snapshot(conn) == before


def test_a_session_that_failed_to_keep_house_lets_others_keep_it(
    url: str, conn: Connection[TupleRow]
) -> None:
    """Once it has kept house after all; until then, they say who holds them up."""
    fill(conn)
    conn.execute("update storage_policy set keep_bars = '14 days'")
    notices: list[str] = []
    with connect(url, program="writer") as writer, connect(url, program="other") as other:
        other.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        with writer.transaction(force_rollback=True):
            writer.execute(LATE)
            conn.execute("set lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                conn.execute("call ohlcv_keep_house()")
        other.execute("call ohlcv_keep_house()")
        (said,) = notices
        assert f"(pid {conn.info.backend_pid})" in said
        conn.execute("call ohlcv_keep_house()")
        assert fetch_value(conn, "select tickstock.bars_since()") == SINCE
        other.execute("call ohlcv_keep_house()")
        assert len(notices) == 1


def test_house_is_kept_whatever_the_search_path(conn: Connection[TupleRow]) -> None:
    """That of the session, or of the role whose job it is; what is called is named in full."""
    fill(conn)
    conn.execute("update storage_policy set keep_bars = '14 days', columnstore_after = '3 days'")
    before = read_snapshot(conn)
    conn.execute("set search_path = ''")
    for statement in (
        "call public.ohlcv_refresh()",
        "call public.ohlcv_keep_house()",
        "update public.ohlcv_1min set volume = volume + 1",
        "call public.ohlcv_keep_house()",
        "call public.ohlcv_refresh()",
        "select * from tickstock.relation_sizes",
    ):
        conn.execute(statement)
    conn.execute("set search_path = public")
    dropped = [bar for bar in before.bars if bar[1] < SINCE]
    assert dropped
    assert differences(read_snapshot(conn), dropped=dropped) == []


@pytest.mark.parametrize("before", ["2025-11-20", "2025-11-27", "2030-01-01", None])
def test_the_feeds_last_week_is_not_dropped(conn: Connection[TupleRow], before: str | None) -> None:
    for bars in (False, True):
        if bars:
            fill(conn)
        with pytest.raises(psycopg.errors.RaiseException, match="last week"):
            conn.execute("call drop_bars(%s)", (before,))


# The columnstore


on_community = pytest.mark.parametrize("engine", ["community"], indirect=True)
"""The only edition that has a columnstore."""


SIZES = """
select s.relation, r.bytes, r.columnstore_bytes,
  coalesce(hypertable_size(s.stored_in), pg_total_relation_size(s.stored_in))
from tickstock.storage s join tickstock.relation_sizes r using (relation)
"""


def test_without_a_columnstore_nothing_moves(conn: Connection[TupleRow]) -> None:
    fill(conn)
    before = read_snapshot(conn)
    conn.execute("call tickstock.to_columnstore('infinity')")
    assert read_snapshot(conn) == before
    moved = fetch_value(conn, "select count(*) from tickstock.columnstore")
    assert bool(moved) == (fetch_value(conn, "select tickstock_engine()") == "community")


COLUMNS_OF = """
select relnamespace::regnamespace::text, relname from pg_class
join _timescaledb_catalog.compression_settings on compress_relid = pg_class.oid
join tickstock.storage s on relid in (select show_chunks(s.stored_in)) where s.relation = %s
"""


def batches(conn: Connection[TupleRow], relation: str, symbol: str) -> list[int]:
    """How many rows there are in each, largest first."""
    query = "select _ts_meta_count from {} where symbol = %s"
    sizes = [
        number
        for chunk in conn.execute(COLUMNS_OF, (relation,)).fetchall()
        for (number,) in conn.execute(sql.SQL(query).format(sql.Identifier(*chunk)), (symbol,))
    ]
    return sorted(sizes, reverse=True)


@on_community
def test_a_week_of_a_symbol_is_one_batch(conn: Connection[TupleRow]) -> None:
    """It takes less space. Candles, of which the last hundreds are read, stay in smaller ones."""
    for day in (6, 7, 10, 11, 12):  # what one chunk holds, pre-market and after-hours too
        at = datetime(2025, 11, day, 8, tzinfo=UTC)
        fill(conn, "A", at, at + timedelta(hours=16), step=timedelta(minutes=1))
    fill(conn, "B", step=timedelta(minutes=5))
    conn.execute("call ohlcv_refresh()")
    conn.execute("call tickstock.to_columnstore('infinity')")
    assert batches(conn, "ohlcv_1min", "A") == [5 * 16 * 60]
    candles = batches(conn, "ohlcv_5min", "B")
    assert sum(candles) > 2 * 1000 >= 2 * candles[0]


@on_community
def test_large_corrections_of_the_columnstore(empty_url: str) -> None:
    """Larger than the 100,000 rows that TimescaleDB allows by default, and then as small as before."""
    migrate(empty_url)  # not a clone: the settings of a database stay behind
    with connect(empty_url, program="test") as conn:
        correct_on_a_large_scale(conn)


def correct_on_a_large_scale(conn: Connection[TupleRow]) -> None:
    fill(conn, "ABCDEFGHIJKL", BEGIN, BEGIN + timedelta(days=7), timedelta(minutes=1))
    conn.execute("call ohlcv_refresh()")
    conn.execute("call tickstock.to_columnstore('infinity')")
    bars, size = fetch_bars_and_size(conn)
    assert bars == 12 * 7 * 24 * 60
    for statement in (
        "update ohlcv_1min set close = high, volume = volume + 1",
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select symbol, ts, open, high, low, open, volume + 1 from ohlcv_1min"
        " on conflict (symbol, ts) do update set close = excluded.close, volume = excluded.volume",
        "delete from ohlcv_1min where symbol < 'L'",
    ):
        done = conn.execute(statement)
        assert done.rowcount > 100_000
        assert fetch_value(conn, "select sum(bars) from ohlcv_5min") == fetch_value(
            conn, "select count(*) from ohlcv_1min"
        )
        conn.execute("call ohlcv_refresh()")
        conn.execute("call tickstock.to_columnstore('infinity')")
        assert fetch_bars_and_size(conn)[1] < size * 6 // 5
    assert differences(read_snapshot(conn)) == []
    assert fetch_bars_and_size(conn)[0] == bars / 12


def fetch_bars_and_size(conn: Connection[TupleRow]) -> tuple[int, int]:
    row = conn.execute(
        "select (select count(*) from ohlcv_1min), sum(hypertable_size(stored_in))"
        " from tickstock.storage where relation like 'ohlcv_%' and relation <> 'ohlcv_revisions'"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


@on_community
@pytest.mark.parametrize("bulk_symbols", [1, 100])
def test_candles_are_corrected_in_the_columnstore(
    conn: Connection[TupleRow], bulk_symbols: int
) -> None:
    """Some change, some vanish, some are new: all in one half hour and one chunk."""
    fill(conn, begin=BEGIN, end=BEGIN + timedelta(days=1), step=timedelta(minutes=3))
    feed_clock_passes(conn)
    conn.execute("select set_config('tickstock.bulk_symbols', %s, false)", (str(bulk_symbols),))
    conn.execute("call ohlcv_refresh()")
    conn.execute("call tickstock.to_columnstore('infinity')")
    conn.execute("delete from ohlcv_1min where symbol = 'A' and extract(minute from ts) < 20")
    conn.execute("update ohlcv_1min set high = high + 1 where extract(minute from ts) < 30")
    fill(conn, "C", BEGIN, BEGIN + timedelta(hours=5))
    conn.execute("call ohlcv_refresh()")
    assert fetch_value(conn, "select count(*) from tickstock.dirty") <= 1
    assert differences(read_snapshot(conn)) == []


@on_community
def test_the_sizes_told_are_those_on_disk(conn: Connection[TupleRow]) -> None:
    fill(conn, step=timedelta(minutes=2))
    conn.execute("call ohlcv_refresh()")
    for statement in (
        "select 1",
        "call tickstock.to_columnstore('2025-11-14')",
        "update ohlcv_1min set volume = volume + 1 where ts < '2025-11-01'",
        "call tickstock.to_columnstore('2025-11-14')",
    ):
        conn.execute(statement)
        for relation, told, in_columnstore, on_disk in conn.execute(SIZES).fetchall():
            assert told == pytest.approx(on_disk, rel=0.1), (statement, relation)
            assert in_columnstore < on_disk
    chunks = conn.execute(
        "select chunks, columnstore_chunks from tickstock.relation_sizes where relation = 'ohlcv_1min'"
    ).fetchone()
    assert chunks == (4, 2)


@on_community
def test_rows_in_the_columnstore_are_told(conn: Connection[TupleRow]) -> None:
    fill(conn)
    conn.execute("call ohlcv_refresh()")
    told = "select approximate_rows from tickstock.relation_sizes where relation = %s"
    assert fetch_value(conn, told, "ohlcv_1min") is None
    conn.execute("call tickstock.to_columnstore('2025-11-14')")
    moved = fetch_value(conn, "select count(*) from ohlcv_1min where ts < '2025-11-13'")
    assert fetch_value(conn, told, "ohlcv_1min") == moved > 0
    conn.execute("analyze")
    for timeframe in ("1min", "5min", "daily"):
        stored = sql.SQL("select count(*) from tickstock.{}").format(
            sql.Identifier(f"candles_{timeframe}")
        )
        assert conn.execute(stored).fetchone() == (fetch_value(conn, told, f"ohlcv_{timeframe}"),)


@on_community
def test_the_scheduler_keeps_candles_fresh_and_house_clean(conn: Connection[TupleRow]) -> None:
    fill(conn)
    feed_clock_passes(conn)
    marks = "select count(*) from tickstock.dirty"
    assert fetch_value(conn, marks) > 1
    conn.execute(
        "select alter_job(job_id, scheduled => true, next_start => now())"
        " from timescaledb_information.jobs where proc_schema = 'tickstock'"
    )
    # The launcher looks for new databases but once a minute.
    conn.execute("select _timescaledb_functions.start_background_workers()")
    until(conn.info.dsn, marks, 1)
    until(
        conn.info.dsn,
        "select chunks > 0 from tickstock.columnstore where relation = 'ohlcv_1min'",
    )
    assert differences(read_snapshot(conn)) == []


@on_community
def test_merge_is_refused_in_words(conn: Connection[TupleRow]) -> None:
    """TimescaleDB's own limit for what may have a columnstore: INSERT … ON CONFLICT does it."""
    fill(conn, "A", BEGIN, BEGIN + timedelta(hours=1))
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="MERGE"):
        conn.execute(
            "merge into ohlcv_1min b using ohlcv_1min n on b.symbol = n.symbol and b.ts = n.ts"
            " when matched then update set close = n.high"
        )
