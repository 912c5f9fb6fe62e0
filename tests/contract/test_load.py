"""Blocks of files: copied straight in where that is possible, and the same as merging bars always."""

import gzip
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tests.e2e.program import until
from tests.properties import on_a_database
from tickstock.bars import Bar, Refusal
from tickstock.db.connection import connect, fetch_value
from tickstock.db.upkeep import UpkeepWorker
from tickstock.db.writer import Counts, write_bars
from tickstock.errors import TickstockError
from tickstock.feed.flatfiles import HEADER, read_bars
from tickstock.ingest.load import load_file, load_files

OPENING = 1_763_994_600_000_000_000
"""2025-11-24, 09:30 in New York, in nanoseconds."""
MINUTE = 60_000_000_000
YEAR_2100 = 4_102_444_800_000_000_000

STORED = "select symbol, ts, open, high, low, close, volume, vwap, trades from ohlcv_1min"


def line(symbol: str, minute: int, *, price: object = 10, start: int = OPENING) -> str:
    return f"{symbol},100,{price},{price},{price},{price},{start + minute * MINUTE},3"


class Outcome(NamedTuple):
    counts: Counts
    bars: set[TupleRow]
    refused: list[TupleRow]


def outcome(conn: Connection[TupleRow], counts: Counts) -> Outcome:
    refused = "select source, reason, payload from refused_bars order by reason, payload"
    return Outcome(counts, set(conn.execute(STORED)), conn.execute(refused).fetchall())


def merged(conn: Connection[TupleRow], path: str) -> Outcome:
    """What merging bar by bar makes of the file; nothing of it stays."""
    items = list(read_bars(path))
    with conn.transaction(force_rollback=True):
        written = write_bars(
            conn,
            [item for item in items if isinstance(item, Bar)],
            source=Path(path).name,
            refusals=[item for item in items if isinstance(item, Refusal)],
            queue_for_scan=False,
        )
        return outcome(conn, written.counts)


def write_file(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join([",".join(HEADER), *lines, ""]))
    return str(path)


possible = st.builds(
    line, st.sampled_from("AB"), st.integers(0, 40), price=st.sampled_from((10, "10.50", "1e1", 0))
)
impossible = st.sampled_from(
    (
        line("A", 0, price="-1"),
        line("A", 0, price="NaN"),
        line("A", 0, start=YEAR_2100),
        line("A", 0, start=OPENING + 1),
        "A,100,10,10,9,11,1763994600000000000,3",  # high below low
        "A,100,10,10,10,10,1763994600000000000,-3",
        "A,100,10,10,10,10,1763994600000000000,99999999999999999999",
        line("back\\slash", 1),
        line('"quoted"', 1),
        "",
        "A,100",
    )
)
mostly_possible = st.lists(st.one_of(possible, possible, possible, impossible), max_size=12)
new_keys = st.lists(possible, max_size=12, unique_by=lambda text: text.rsplit(",", 2)[1] + text[0])


@on_a_database(examples=20)
@given(st.lists(st.one_of(mostly_possible, new_keys), min_size=1, max_size=3))
def test_a_file_becomes_what_its_bars_merge_to(
    conn: Connection[TupleRow], tmp_path: Path, files: list[list[str]]
) -> None:
    conn.execute("truncate ohlcv_1min")
    conn.execute("truncate refused_bars")
    for lines in files:
        path = write_file(tmp_path / "day.csv", lines)
        wanted = merged(conn, path)
        assert outcome(conn, load_file(conn, path)) == wanted
        marks = conn.execute("select * from tickstock.dirty order by id").fetchall()
        counts = load_file(conn, path)
        assert counts.unchanged + counts.refused == counts.received == wanted.counts.received
        assert conn.execute("select * from tickstock.dirty order by id").fetchall() == marks
    assert differences(read_snapshot(conn)) == []


def test_new_bars_are_not_merged(conn: Connection[TupleRow], tmp_path: Path) -> None:
    lines = [line(symbol, minute) for symbol in "AB" for minute in range(100)]
    path = write_file(tmp_path / "day.csv", [*lines, "nonsense"])
    assert load_file(conn, path) == Counts(received=201, inserted=200, refused=1)
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_bars')") is None
    assert load_file(conn, path) == Counts(received=201, unchanged=200, refused=1)
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_bars')") is not None


def test_what_only_merging_judges_is_refused_among_new_bars_too(
    conn: Connection[TupleRow], tmp_path: Path
) -> None:
    path = write_file(tmp_path / "day.csv", [line("A", 0), line("B", 0, start=YEAR_2100)])
    assert load_file(conn, path) == Counts(received=2, inserted=1, refused=1)
    (refused,) = conn.execute("select source, reason from refused_bars").fetchall()
    assert refused == ("day.csv", "time 2100-01-01 00:00:00+00 is more than a day in the future")


def test_a_load_leaves_its_candles_materialized(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    paths = [
        write_file(
            tmp_path / f"{day}.csv",
            [
                line(symbol, minute, start=OPENING + day * 1440 * MINUTE)
                for symbol in ("A", "B", "ZZ")
                for minute in range(0, 390, 7)
            ],
        )
        for day in range(3)
    ]
    loaded = dict(load_files(conn, url, paths))
    assert loaded == dict.fromkeys(paths, Counts(received=168, inserted=168))
    forming = conn.execute("select distinct granule::text from tickstock.dirty").fetchall()
    assert forming == [("2025-11-26 20:30:00+00",)]
    assert differences(read_snapshot(conn)) == []


@pytest.mark.parametrize("there", [False, True])
def test_before_a_broken_file_is_told_what_came_until_then_is_materialized(
    url: str, conn: Connection[TupleRow], tmp_path: Path, there: bool
) -> None:
    whole = write_file(tmp_path / "whole.csv", [line("A", minute) for minute in range(100)])
    cut = tmp_path / "cut.csv.gz"
    if there:
        lines = [",".join(HEADER), *(line("A", minute) for minute in range(100, 400)), ""]
        cut.write_bytes(gzip.compress("\n".join(lines).encode())[:-8])
    with pytest.raises(
        TickstockError, match="the gzip data is incomplete" if there else "no such file"
    ):
        dict(load_files(conn, url, [whole, str(cut)]))
    assert (fetch_value(conn, "select count(*) from ohlcv_1min") > 100) == there
    forming = fetch_value(conn, "select candle_start('30min', latest_minute())")
    assert conn.execute("select distinct granule from tickstock.dirty").fetchall() == [(forming,)]
    assert differences(read_snapshot(conn)) == []


WORKS_FOR_LONG = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name in ('tickstock load', 'tickstock upkeep')
  and wait_event_type = 'Lock' and now() - query_start > '1 second'
"""


def test_a_limit_of_the_servers_stops_neither_load_nor_refresh(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    """Cut off each time, a refresh of much would never come to its end."""
    name = sql.Identifier(conn.info.dbname)
    conn.execute(sql.SQL("alter database {} set statement_timeout = '500ms'").format(name))
    path = write_file(tmp_path / "day.csv", [line("A", minute) for minute in range(100)])
    conn.execute("select pg_advisory_lock(hashtext('tickstock.refresh'))")

    def load() -> None:
        with connect(url, program="load") as loading:
            dict(load_files(loading, url, [path]))

    stop = threading.Event()
    works = [threading.Thread(target=load, daemon=True), UpkeepWorker(url, stop, interval=0.01)]
    for work in works:
        work.start()
    try:
        until(url, WORKS_FOR_LONG, 2)
        conn.execute("select pg_advisory_unlock(hashtext('tickstock.refresh'))")
        works[0].join(timeout=30)
        until(url, "select count(*) from tickstock.dirty", 1)
    finally:
        stop.set()
        works[1].join(timeout=30)
    assert not any(work.is_alive() for work in works)


@pytest.fixture
def rival(url: str) -> Iterator[Connection[TupleRow]]:
    with connect(url, program="rival", autocommit=False) as conn:
        conn.execute("set deadlock_timeout = '60s'")
        conn.commit()
        yield conn


def test_a_deadlock_with_another_writer_is_survived(
    conn: Connection[TupleRow], rival: Connection[TupleRow], tmp_path: Path
) -> None:
    path = write_file(tmp_path / "day.csv", [line("Z", 0), line("A", 0)])
    conn.execute("set deadlock_timeout = '2s'")
    insert = (
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        f" select %s, to_timestamp({OPENING // 10**9}), 9, 9, 9, 9, 9"
    )
    conn.execute(insert, ("M",))  # so that there is a chunk
    rival.execute(insert, ("A",))
    counts: list[Counts] = []
    loading = threading.Thread(target=lambda: counts.append(load_file(conn, path)), daemon=True)
    loading.start()
    await_waiting(rival, conn.info.backend_pid)
    rival.execute(insert, ("Z",))  # which waits for the load, until it has given way
    rival.commit()
    loading.join(timeout=30)
    assert counts == [Counts(received=2, replaced=2)]


def await_waiting(conn: Connection[TupleRow], pid: int) -> None:
    waiting = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    while not fetch_value(conn, waiting, pid):
        conn.execute("select pg_stat_clear_snapshot()")
