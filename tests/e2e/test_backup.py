"""A dump that is restored as docs/operations.md says is the same database, and goes on."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from tests.conftest import Engine, installation_of
from tests.contract.oracle import Calendar, differences, read_snapshot
from tests.contract.test_upgrade import FILL, schema_of
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.server import client_command

from .hand_fed import OPENING, bars, hand_fed
from .program import KEY, run, running, until

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
BEFORE = ("create extension timescaledb", "select timescaledb_pre_restore()")
AFTER = ("select timescaledb_post_restore()",)

PASSWORD = "it's a s3cr3t"  # noqa: S105 - of roles that are gone after the test
HALF_DAY = OPENING.replace(day=10).date()
CALENDAR = Calendar().with_day(
    HALF_DAY, (OPENING.replace(day=10), OPENING.replace(day=10, hour=20, minute=0))
)
# Half hours in the columnstore, some of them corrected; bars that are gone, with candles that stay; a
# day that closed early, so that session_of() is not as it was delivered.
PAST = (
    "call ohlcv_refresh()",
    "call tickstock.to_columnstore('2025-11-14')",
    "update ohlcv_1min set close = high, volume = volume + 1"
    " where symbol = 'A' and ts between '2025-11-05' and '2025-11-08'",
    "update trading_days set closes_at = closes_at - interval '1 hour' where day = '2025-11-10'",
    "call ohlcv_refresh()",
)
DROP = "call drop_bars('2025-11-02')"
# Marks that wait, and bars that nobody has scanned yet.
WAITING = (
    "update storage_policy set columnstore_after = '20 days'",
    "insert into ticks (symbol, ts, sequence, price, size)"
    " values ('A', '2025-11-24 14:30:01+00', 1, 10.5, 100)",
    "insert into refused_bars (source, reason, payload) values ('feed', 'no bar', '{}')",
    "insert into backfills (symbol, starts, ends, source)"
    " values ('A', '2025-11-12', '2025-11-13', 'rest')",
    "insert into consumers (consumer, heard) values ('desk', 3)",
    "insert into tickstock.doubts (symbol, ts) values ('A', '2025-11-24 14:30+00')",
    "insert into tickstock.publishing (since, up_to) values (0, 2)",
    "update ohlcv_1min set close = low where symbol = 'BRK.B' and ts > '2025-11-21'",
    "delete from ohlcv_1min where symbol = 'C' and ts between '2025-11-11' and '2025-11-12'",
)
ALL_SCANNED = (
    "select not exists (select from tickstock.scan_queue where ready_at <= latest_minute())"
)
TABLES = """
select o.object
from tickstock.our_objects o join pg_class c on c.oid = o.object::regclass
where o.kind = 'table' and (c.relkind = 'r' or o.name like 'candles\\_%') order by 1
"""
# PostgreSQL writes what it has read of its own writing with fewer parentheses.
WRITTEN_ANEW = re.compile(r"[()]|(?<=::text) AS text")
RIGHTS = re.compile(r"(?<= \| \[)'[^]]*(?=\] \| )")


class Market(NamedTuple):
    """Connection strings of a database in the midst of its work, and of two that are empty at first."""

    source: str
    target: str
    elsewhere: str
    writer: str
    reader: str
    """Names of roles."""
    dropped: list[TupleRow]
    """Bars that are gone, while their candles stay."""


@pytest.fixture
def market(engine: Engine) -> Iterator[Market]:
    urls = engine.create(), engine.create(), engine.create()
    source = urls[0]
    dbname = conninfo_to_dict(source)["dbname"]
    roles = {"writer": f"writer_{dbname}", "reader": f"reader_{dbname}"}
    try:
        succeeds(source, "db", "migrate")
        for kind, name in roles.items():
            succeeds(source, "db", "grant", kind, name, TICKSTOCK_ROLE_PASSWORD=PASSWORD)
        yield Market(*urls, **roles, dropped=fill(source, engine))
    finally:
        for each in urls:
            engine.drop(each)
        with psycopg.connect(make_conninfo(source, dbname="postgres"), autocommit=True) as conn:
            for name in roles.values():
                conn.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


def succeeds(url: str, *arguments: str, **settings: str) -> str:
    done = run(*arguments, TICKSTOCK_DATABASE_URL=url, **settings)
    assert done.returncode == 0, done
    return done.stdout


def fill(url: str, engine: Engine) -> list[TupleRow]:
    """Make the database what it is; returns the bars that are dropped."""
    with connect(url, program="test") as conn:
        if engine.name == "community":  # the scheduler's time is its own
            conn.execute(
                "select alter_job(job_id, scheduled => false)"
                " from timescaledb_information.jobs where proc_schema = 'tickstock'"
            )
        conn.execute("set tickstock.scan_queue = off")
        conn.execute(FILL)
        for statement in PAST:
            conn.execute(statement)
        before = read_snapshot(conn).bars
        conn.execute(DROP)
        ingest_and_scan(url, range(5))
        conn.execute("reset tickstock.scan_queue")
        for statement in WAITING:
            conn.execute(statement)
        since = fetch_value(conn, "select min(ts) from ohlcv_1min")
        return [row for row in before if row[1] < since]


def ingest_and_scan(url: str, minutes: range) -> None:
    """Bars of a Doji by the feed, until they are stored and scanned."""
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": KEY}
    count = "select count(*) from ohlcv_1min where symbol = 'DOJI'"
    with (
        connect(url, program="test") as conn,
        hand_fed() as feed,
        running("ingest", "--symbols", "DOJI", "--feed-url", feed.url, **settings) as ingest,
        running("scan", **settings) as scan,
    ):
        wanted = fetch_value(conn, count) + len(minutes)
        feed.send(*bars("DOJI", minutes))
        until(url, count, wanted)
        until(url, ALL_SCANNED)
        assert (ingest.stop(), scan.stop()) == (0, 0)


def restore(dump: bytes, url: str, engine: Engine, *options: str) -> None:
    if engine.name != "postgres":
        execute(url, BEFORE)
    client("pg_restore", url, engine, "--exit-on-error", *options, data=dump)
    if engine.name != "postgres":
        execute(url, AFTER)


def finish(url: str, market: Market, engine: Engine) -> None:
    """What pg_dump leaves out."""
    succeeds(url, "db", "migrate")
    succeeds(url, "db", "grant", "reader", market.reader)
    succeeds(url, "db", "grant", "writer", market.writer)
    client("vacuumdb", url, engine, "--analyze-only")


def execute(url: str, statements: tuple[str, ...]) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def client(program: str, url: str, engine: Engine, *options: str, data: bytes = b"") -> bytes:
    """Run a program of PostgreSQL's, of the server's version; returns what it writes."""
    installation = installation_of(engine.name)
    if installation:
        command = client_command(installation, program, url)
    else:
        command = [shutil.which(program) or program, f"--dbname={url}"]
    done = subprocess.run([*command, *options], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def schema(conn: Connection[TupleRow], engine: Engine) -> dict[str, list[str]]:
    """Definitions and rights, but for how they are written and in which order they were granted."""

    def sort(rights: re.Match[str]) -> str:
        return ", ".join(sorted(rights[0].split(", ")))

    return {
        what: [RIGHTS.sub(sort, WRITTEN_ANEW.sub("", each)) for each in found]
        for what, found in schema_of(conn, engine.name).items()
    }


def rows_of(conn: Connection[TupleRow]) -> dict[str, list[str]]:
    """The contents of our tables, and of candles in continuous aggregates."""
    tables = [table for (table,) in conn.execute(TABLES).fetchall()]
    return {
        table: [
            row for (row,) in conn.execute(f"select t::text from {table} t order by 1".encode())
        ]
        for table in tables
    }


def test_these_are_the_commands_of_the_docs() -> None:
    text = OPERATIONS.read_text()
    for command in (
        "pg_dump --format=custom",
        "pg_restore --exit-on-error",
        "vacuumdb --analyze-only",
    ):
        assert f"\n{command} " in text
    for statement in (*BEFORE, *AFTER):
        assert f"--command='{statement}'" in text


def test_a_restored_dump_is_the_same_and_goes_on(engine: Engine, market: Market) -> None:
    dump = client("pg_dump", market.source, engine, "--format=custom")
    restore(dump, market.target, engine)
    # As on another server, where the roles are not there.
    restore(dump, market.elsewhere, engine, "--no-owner", "--no-privileges")
    with connect(market.source, program="test") as source:
        snapshot, contents = read_snapshot(source), rows_of(source)
        assert differences(snapshot, CALENDAR, market.dropped) == []
        assert all(contents.values())  # of empty tables it would say nothing
        for url in (market.target, market.elsewhere):
            finish(url, market, engine)
            with connect(url, program="test") as restored:
                assert schema(restored, engine) == schema(source, engine)
                assert read_snapshot(restored) == snapshot
                assert rows_of(restored) == contents
    goes_on(market, engine)


def goes_on(market: Market, engine: Engine) -> None:
    """Ingest, scan, refresh, corrections of all kinds, and the roles."""
    writer, reader = (
        make_conninfo(market.target, user=name) for name in (market.writer, market.reader)
    )
    with connect(market.target, program="test") as conn:
        events = fetch_value(conn, "select max(id) from events")
        ingest_and_scan(writer, range(5, 10))
        assert fetch_value(conn, "select count(*) from events where id > %s", events) > 0
        conn.execute("update ohlcv_1min set high = 1000 where symbol = 'A' and ts < '2025-11-13'")
        conn.execute("delete from ohlcv_1min where symbol = 'BRK.B' and ts > '2025-11-20'")
        for statement in (
            "call ohlcv_refresh()",
            "call tickstock.to_columnstore('2025-11-20')",
            "update trading_days set closes_at = closes_at + interval '1 hour' where day = '2025-11-10'",
        ):
            assert differences(read_snapshot(conn), CALENDAR, market.dropped) == []
            conn.execute(statement)
        assert differences(read_snapshot(conn), dropped=market.dropped) == []
        with pytest.raises(psycopg.errors.CheckViolation, match="have been dropped"):
            conn.execute(
                "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
                " values ('A', '2025-10-29 15:00+00', 1, 1, 1, 1, 1)"
            )
        if engine.name == "community":
            jobs = "select job_id from timescaledb_information.jobs where proc_schema = 'tickstock'"
            for (job,) in conn.execute(jobs).fetchall():
                conn.execute("call run_job(%s)", (job,))
    with connect(reader, program="test") as conn:
        assert fetch_value(conn, "select count(*) from ohlcv_daily") > 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("delete from events")
    assert json.loads(succeeds(market.target, "db", "status", "--json"))["engine"] == engine.name
