"""A pattern that fails, however it fails, stops nothing else."""

import logging
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.e2e.program import eventually, run, running, until
from tests.scan.support import (
    WAITING,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    signalling,
    write,
)
from tickstock.db.connection import connect, fetch_value
from tickstock.patterns import Bools, Candles, Pattern
from tickstock.patterns.sql_files import parse
from tickstock.scan.scanner import Scanned, Scanner

OPENING = new_york("2025-11-24 09:30")


def raises(c: Candles) -> Bools:
    raise RuntimeError("cannot judge")


def exits(c: Candles) -> Bools:
    sys.exit(3)


def in_sql(name: str, query: str) -> Pattern:
    return parse(f"-- {name}: broken.\n-- candles: 2\n-- timeframes: 1min\n{query}", "broken.sql")


WRONG_TIME = (
    "select symbol, {}, 'long', 1, '{{}}'::jsonb from candles where back = 0 order by symbol"
)
ANSWER = "select symbol, judged, {} from candles where back = 0"
BROKEN = {
    "cannot judge": firing("B0", raises),
    "not bool": firing("B1", lambda c: c.close[-1]),
    'relation "nowhere"': in_sql("B2", "select * from nowhere"),
    "division by zero": in_sql("B3", ANSWER.format("'long', 1 / (back * 0), '{}'::jsonb")),
    "its direction is 'up'": in_sql("B4", ANSWER.format("'up', 1, '{}'::jsonb")),
    "its strength is 7": in_sql("B5", ANSWER.format("'long', 7, '{}'::jsonb")),
    "its details are [1]": in_sql("B6", ANSWER.format("'long', 1, '[1]'::jsonb")),
    "Integer exceeds 64-bit range": in_sql(
        "B10", ANSWER.format("""'long', 1, jsonb_build_object('far', 1e30::numeric)""")
    ),
    "which was not asked about": in_sql(
        "B7", "select symbol, judged - interval '9 days', 'long', 1, '{}'::jsonb from candles"
    ),
    "has 1 columns available": in_sql("B8", "select 1"),
    "it called sys.exit(3)": firing("B9", exits),
    "in 'A' at None": in_sql("B11", WRONG_TIME.format("null::timestamptz")),
    "in 'A' at datetime.date(2025": in_sql("B12", WRONG_TIME.format("judged::date")),
    "in 'A' at datetime.datetime(2025": in_sql("B13", WRONG_TIME.format("judged::timestamp")),
    "its direction is ['long']": in_sql(
        "B14", ANSWER.format("array['long'], 1::float8, '{}'::jsonb")
    ),
    "array size exceeds": in_sql(
        "B15", ANSWER.format("'long', cardinality(array_fill(1, array[1000, 1000, 1000])), '{}'")
    ),
    "stack depth limit exceeded": in_sql("B16", ANSWER.format("'long', deeper(1), '{}'::jsonb")),
    "currval of sequence": in_sql(
        "B17", ANSWER.format("'long', currval('events_change_seq'), '{}'::jsonb")
    ),
    "in a read-only transaction": in_sql("B19", ANSWER.format("'long', writes(), '{}'::jsonb")),
    "it says two things of A": in_sql(
        "B18",
        "select c.symbol, c.judged, d.direction, 1, '{}'::jsonb"
        " from candles c, (values ('long'), ('short')) d (direction) where c.back = 0",
    ),
}


@on_one_engine
def test_it_stops_nothing_else(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    conn.execute(
        "create function deeper(n integer) returns integer language plpgsql"
        " as 'begin return deeper(n + 1); end'"
    )
    conn.execute(
        "create function writes() returns integer language sql"
        " as 'insert into consumers (consumer, heard) values (''me'', 1) returning 1'"
    )
    scanner = Scanner(
        [signalling("A"), *BROKEN.values(), signalling("Z")],
    )
    write(conn, *(bar(symbol, OPENING) for symbol in ("A", "B", "C")))
    with caplog.at_level(logging.INFO, "tickstock"):
        assert drain(conn, scanner) == Scanned(3, 6)
    assert fetch_value(conn, WAITING) == 0
    events = conn.execute("select pattern, symbol from events order by 1, 2").fetchall()
    assert events == [(name, symbol) for name in ("A", "Z") for symbol in ("A", "B", "C")]

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(BROKEN), "each is reported once, not for each symbol"
    for reason, pattern in BROKEN.items():
        (line,) = (line for line in said if line.startswith(f"pattern {pattern.name} failed on"))
        assert reason in line


@on_one_engine
def test_what_makes_no_sense_costs_other_candles_nothing(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    """Else live scanning, of many symbols at once, would find other events than a scan of one's history."""
    several = "'long', case symbol when 'B' then 7 else 1 end, '{}'::jsonb"
    scanner = Scanner([in_sql("Some", ANSWER.format(several))])
    write(conn, *(bar(symbol, OPENING) for symbol in ("A", "B", "C")))
    assert drain(conn, scanner) == Scanned(3, 2)
    assert "its strength is 7" in caplog.text


@on_one_engine
def test_one_that_fails_on_a_part_of_the_candles_was_not_asked(conn: Connection[TupleRow]) -> None:
    """Symbols with one new candle are judged side by side, those with several one by one."""

    def fails_on_b(c: Candles) -> Bools:
        if (c.close[-1] == 12).any():
            raise RuntimeError("cannot judge")
        there: Bools = c.close[-1] > 0
        return there

    scanner = Scanner([firing("Some", fails_on_b), signalling("Z")])
    later = OPENING + MINUTE
    write(conn, bar("A", later), bar("B", OPENING), bar("B", later, "12.00"))
    assert drain(conn, scanner) == Scanned(3, 3)
    assert conn.execute(EVENTS).fetchall() == [("Z", 3, 0)]


@on_one_engine
def test_a_query_may_end_with_a_comment(conn: Connection[TupleRow]) -> None:
    query = ANSWER.format("'long', 1, '{}'::jsonb") + "  -- fresh ones"
    write(conn, bar("A", OPENING))
    assert drain(conn, Scanner([in_sql("Some", query)])) == Scanned(1, 1)


@on_one_engine
@pytest.mark.parametrize(
    ("well", "fails"),
    [
        (firing("Some", lambda c: c.close[-1] > 0), firing("Some", raises)),
        (
            in_sql("Some", ANSWER.format("'long', 1, '{}'::jsonb")),
            in_sql("Some", ANSWER.format("'long', 1 / (back * 0), '{}'::jsonb")),
        ),
    ],
)
def test_one_that_fails_takes_nothing_back(
    conn: Connection[TupleRow], well: Pattern, fails: Pattern
) -> None:
    """A consumer would act upon it, and no bar has changed for the worse."""
    write(conn, bar("A", OPENING))
    assert drain(conn, Scanner([well])) == Scanned(1, 1)
    write(conn, bar("A", OPENING, "11.00"), bar("B", OPENING))
    assert drain(conn, Scanner([fails, signalling("Z")])) == Scanned(2, 2)
    write(conn, bar("A", OPENING, "12.00"))
    assert drain(conn, Scanner([well])) == Scanned(1, 1), "it is made anew from the candle as it is"
    assert conn.execute(EVENTS).fetchall() == [("Some", 1, 0), ("Z", 2, 0)]


@on_one_engine
def test_one_in_python_that_never_ends_is_named(
    conn: Connection[TupleRow], url: str, tmp_path: Path
) -> None:
    file = tmp_path / "endless.py"
    file.write_text(
        "from tickstock.patterns import pattern\n"
        "@pattern('Endless', candles=1, timeframes=['1min'])\n"
        "def endless(c, p):\n"
        "    while True:\n"
        "        pass\n"
    )
    write(conn, bar("A", OPENING))
    settings = {"TICKSTOCK_DATABASE_URL": url, "TICKSTOCK_PATTERN_TIMEOUT": "0.2"}
    scanning = ("scan", "--patterns", str(tmp_path))
    for command in (scanning, (*scanning, "--from", "2025-11-24"), ("patterns", "test", str(file))):
        with running(*command, **settings) as scan:
            scan.await_error("pattern Endless on 1min candles has not answered for")
            assert f", at {file}, line" in "".join(scan.errors)


MINUTE = timedelta(minutes=1)
ENDLESS = """
select c.symbol, c.judged, 'long', 1, '{}'::jsonb
from candles c, generate_series(1, 1000000000) a, generate_series(1, 1000000000) b
where c.back = 0 and a + b = 0
"""
ASLEEP = "select symbol, judged, 'long', 1, '{}'::jsonb from candles, pg_sleep(1000000)"
WELL = ANSWER.format("'long', 1, '{}'::jsonb")
EVENTS = "select pattern, count(*), count(retracted_at) from events group by pattern order by 1"


@on_one_engine
@pytest.mark.parametrize("query", [ENDLESS, ASLEEP])
def test_one_that_never_ends_is_stopped_and_left_out(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture, query: str
) -> None:
    patterns = [signalling("A"), in_sql("Endless", query), in_sql("Well", WELL)]
    scanner = Scanner(patterns, pattern_timeout=0.3)
    conn.execute("set statement_timeout = '20s'")
    write(conn, bar("A", OPENING))
    with conn.transaction():
        began = time.monotonic()
        assert scanner.scan(conn) == Scanned(1, 2)
        assert time.monotonic() - began < 15, "not by the session's own limit"
        assert fetch_value(conn, "show statement_timeout") == "20s", "the limit is the pattern's"
    [line] = [r.getMessage() for r in caplog.records if "Endless" in r.getMessage()]
    assert line.startswith("pattern Endless failed on 1min candles")
    assert "took more than 0.3 s" in line
    assert "TICKSTOCK_PATTERN_TIMEOUT" in line

    caplog.clear()
    with caplog.at_level(logging.DEBUG, "tickstock.patterns"):
        for minute in range(1, 6):
            write(conn, bar("A", OPENING + minute * MINUTE))
            assert drain(conn, scanner).events == 2
    assert not caplog.messages, "it was not even asked"
    assert conn.execute(EVENTS).fetchall() == [("A", 6, 0), ("Well", 6, 0)]


@on_one_engine
def test_what_took_too_long_retracts_nothing(conn: Connection[TupleRow]) -> None:
    write(conn, bar("A", OPENING))
    drain(conn, Scanner([in_sql("Some", WELL)]))
    drain_again = Scanner([in_sql("Some", ASLEEP)], pattern_timeout=0.1)
    write(conn, bar("A", OPENING, close="11.00"))
    assert drain(conn, drain_again).retracted == 0
    write(conn, bar("A", OPENING, close="12.00"))
    assert drain(conn, drain_again).retracted == 0, "nor while it is left out"
    assert conn.execute(EVENTS).fetchall() == [("Some", 1, 0)]


@on_one_engine
def test_after_a_while_it_is_asked_again(conn: Connection[TupleRow]) -> None:
    scanner = Scanner([slow(conn)], pattern_timeout=0.1)
    write(conn, bar("A", OPENING))
    assert drain(conn, scanner) == Scanned(1)
    conn.execute("update pace set seconds = 0")
    deadline = time.monotonic() + 30
    for minute in range(1, 10_000):
        write(conn, bar("A", OPENING + minute * MINUTE))
        if drain(conn, scanner).events:
            break
        assert time.monotonic() < deadline


@on_one_engine
def test_somebody_who_stops_its_query_does_not_stop_the_pattern(
    conn: Connection[TupleRow], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    scanner = Scanner([slow(conn)], pattern_timeout=60)
    write(conn, bar("A", OPENING))
    with connect(url, program="test") as other:
        stop = threading.Thread(target=cancel, args=(other, conn.info.backend_pid))
        stop.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            scanner.scan(conn)
        stop.join()
    conn.execute("update pace set seconds = 0")
    assert drain(conn, scanner) == Scanned(1, 1), "its candles are not passed over"
    assert not caplog.messages


def slow(conn: Connection[TupleRow]) -> Pattern:
    """A pattern that takes as long as the table pace says, at first for good."""
    conn.execute("create table pace as select 1000000 as seconds")
    return in_sql("Slow", f"{WELL} and (select pg_sleep(seconds) from pace) is not null")


def cancel(conn: Connection[TupleRow], pid: int) -> None:
    """What this session does, once it sleeps."""
    asleep = "select wait_event = 'PgSleep' from pg_stat_activity where pid = %s"
    eventually(lambda: fetch_value(conn, asleep, pid), "it sleeps")
    conn.execute("select pg_cancel_backend(%s)", (pid,))


@on_one_engine
def test_who_locks_what_it_reads_does_not_stop_the_pattern(
    conn: Connection[TupleRow], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    scanner = Scanner([slow(conn)])
    write(conn, bar("A", OPENING))
    conn.execute("update pace set seconds = 0")
    conn.execute("set lock_timeout = '50ms'")
    with connect(url, program="test") as other, other.transaction():
        other.execute("lock table pace")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            scanner.scan(conn)
    assert drain(conn, scanner) == Scanned(1, 1), "its candles are not passed over"
    assert not caplog.messages


@on_one_engine
def test_one_that_outgrows_the_server_stops_nothing_else(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    sorts = ANSWER.format("'long', 1, '{}'::jsonb").replace(
        "where", ", (select n from generate_series(1, 2000000) n order by -n offset 1) n where"
    )
    scanner = Scanner([in_sql("Large", sorts), signalling("A")])
    write(conn, bar("A", OPENING))
    conn.execute("set temp_file_limit = '1MB'")
    assert drain(conn, scanner) == Scanned(1, 1)
    assert "temporary file size exceeds" in caplog.text


@on_one_engine
def test_the_commands_keep_the_limit_that_is_set(
    conn: Connection[TupleRow], url: str, tmp_path: Path
) -> None:
    file = tmp_path / "endless.sql"
    file.write_text(f"-- Endless: never ends.\n-- candles: 1\n-- timeframes: 1min\n{ENDLESS}")
    write(conn, bar("A", OPENING), bar("A", OPENING + MINUTE))
    settings = {"TICKSTOCK_DATABASE_URL": url, "TICKSTOCK_PATTERN_TIMEOUT": "0.2"}
    tried = run("patterns", "test", str(file), **settings)
    assert tried.returncode == 1
    assert f"{file}: Endless fails on 1min candles: TimeoutError: it took more" in tried.stderr
    with running("scan", "--patterns", str(tmp_path), **settings) as scan:
        scan.await_error("pattern Endless failed on 1min candles")
        until(url, WAITING, 0)
        assert scan.stop() == 0
