"""Installing and upgrading the schema."""

import hashlib
import json
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tickstock import sqlfiles
from tickstock.db.connection import connect, require_schema
from tickstock.db.migrate import migrate
from tickstock.db.status import status
from tickstock.errors import SchemaMissingError, TickstockError

UNDESCRIBED = """
with named as (
  select 'relation ' || c.oid::regclass as name, obj_description(c.oid, 'pg_class') as comment
  from pg_class c
  where c.relkind in ('r', 'v', 'p')
    and c.relnamespace in ('public'::regnamespace, 'tickstock'::regnamespace)
  union all
  select 'column ' || c.oid::regclass || '.' || a.attname, col_description(c.oid, a.attnum)
  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  where c.relkind in ('r', 'v', 'p') and c.relnamespace = 'public'::regnamespace
  union all
  select 'routine ' || p.oid::regprocedure, obj_description(p.oid, 'pg_proc')
  from pg_proc p where p.pronamespace in ('public'::regnamespace, 'tickstock'::regnamespace)
  union all
  select 'schema tickstock', obj_description('tickstock'::regnamespace, 'pg_namespace')
)
select name from named
where comment is null
  -- An extension describes its own.
  and name not in (select 'routine ' || objid::regprocedure from pg_depend
                   where deptype = 'e' and classid = 'pg_proc'::regclass)
order by 1
"""
BAR = (
    "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
    " values ('A', '2025-11-24 15:00+00', 1, 1, 1, 1, 1)"
)


def test_every_object_has_a_comment(conn: Connection[TupleRow]) -> None:
    assert conn.execute(UNDESCRIBED).fetchall() == []


def test_the_bars_are_a_hypertable_wherever_there_are_hypertables(
    engine: Engine, conn: Connection[TupleRow]
) -> None:
    assert conn.execute("select tickstock_engine()").fetchone() == (engine.name,)
    if engine.name == "postgres":
        return
    assert conn.execute(
        "select hypertable_name from timescaledb_information.hypertables"
        " where hypertable_schema = 'public' order by 1"
    ).fetchall() == [("ohlcv_1min",), ("ticks",)]
    caggs = conn.execute(
        "select count(*) from timescaledb_information.continuous_aggregates"
    ).fetchone()
    assert caggs == ((8,) if engine.name == "community" else (0,))


def test_a_migration_is_safe_to_repeat(url: str) -> None:
    assert migrate(url).applied == []


def test_twenty_migrations_at_once_end_like_one(empty_url: str) -> None:
    applied: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: applied.append(migrate(empty_url).applied))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(bool, applied)) == [False] * 19 + [True]
    with connect(empty_url, program="test") as conn:
        require_schema(conn)


def test_rerunning_the_objects_on_a_full_database_keeps_it(conn: Connection[TupleRow]) -> None:
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', timestamptz '2025-11-24 14:30+00' + i * interval '1 minute', 1, 2, 1, 2, 3"
        " from generate_series(0, 600) i"
    )
    conn.execute("call ohlcv_refresh()")
    daily = conn.execute("table ohlcv_daily").fetchall()
    conn.execute("update tickstock.migrations set sha256 = 'older' where name = 'objects'")
    assert migrate(conn.info.dsn).applied == ["objects"]
    assert conn.execute("table ohlcv_daily").fetchall() == daily != []


def test_a_changed_migration_is_refused(url: str) -> None:
    with connect(url, program="test") as conn:
        conn.execute("update tickstock.migrations set sha256 = 'other' where name like '001%'")
    with pytest.raises(TickstockError, match=r"001-tables\.sql differs"):
        migrate(url)


def test_a_failing_migration_leaves_nothing(empty_url: str) -> None:
    with connect(empty_url, program="test") as conn:
        conn.execute("create table events (mine int)")
        with pytest.raises(psycopg.errors.DuplicateTable):
            migrate(empty_url)
        assert conn.execute("select to_regclass('ohlcv_1min')").fetchone() == (None,)


def test_a_missing_or_old_schema_is_told(url: str, empty_url: str) -> None:
    with (
        connect(empty_url, program="test") as conn,
        pytest.raises(SchemaMissingError, match="db migrate"),
    ):
        require_schema(conn)
    with connect(url, program="test") as conn:
        conn.execute("delete from tickstock.migrations where name like '004%'")
        with pytest.raises(SchemaMissingError, match=r"lacks 004.*db migrate"):
            require_schema(conn)


def test_a_schema_before_public_is_left_alone(engine: Engine, empty_url: str) -> None:
    """Such as one of the user's name, which comes first unless he has set his search_path otherwise."""
    with psycopg.connect(empty_url, autocommit=True) as mine:
        mine.execute("create schema authorization current_user")
        mine.execute("create table events as select 'mine' as what")
    assert migrate(empty_url).engine == engine.name
    with connect(empty_url, program="test") as conn:
        conn.execute(BAR)
        assert status(conn)["freshness"]["dirty_half_hours"] == 1
        assert conn.execute("select pattern from events").fetchall() == []
    with psycopg.connect(empty_url, autocommit=True) as mine:
        assert mine.execute("select what from events").fetchall() == [("mine",)]
        ours = "select oid::regclass from pg_class where relnamespace = %s::regnamespace"
        assert mine.execute(ours, (mine.info.user,)).fetchall() == [("events",)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_refused(empty_url: str, encoding: str) -> None:
    """As createdb makes it where the cluster was made under the locale C, in a container for instance."""
    with psycopg.connect(empty_url, autocommit=True) as conn:
        name = f"{conn.info.dbname}_{encoding.lower()}"
        made = sql.SQL("create database {} template template0 encoding {} locale 'C'")
        conn.execute(made.format(sql.Identifier(name), encoding))
        try:
            with pytest.raises(TickstockError, match=f"{encoding}.*--encoding=UTF8"):
                migrate(make_conninfo(empty_url, dbname=name))
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_the_encoding_of_a_terminal_is_no_matter(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    migrate(empty_url)
    with connect(empty_url, program="test") as conn:
        assert conn.execute("select '…€'").fetchone() == ("…€",)


def test_without_timescaledb_means_plain_tables(empty_url: str) -> None:
    assert migrate(empty_url, use_timescaledb=False).engine == "postgres"


def test_released_migrations_are_frozen() -> None:
    """A released migration never changes: databases have been given it. Write a new one instead."""
    folder = sqlfiles.sql_folder() / "migrations"
    frozen = json.loads((Path(__file__).parent / "frozen_migrations.json").read_text())
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.sql")
    }
    assert present == frozen


def test_status_tells_what_is_there(engine: Engine, conn: Connection[TupleRow]) -> None:
    conn.execute(BAR)
    told = status(conn)
    assert told["engine"] == told["schema_made_for"] == engine.name
    assert bool(told["versions"]["timescaledb"]) == (engine.name != "postgres")
    sizes = {row["relation"]: row for row in told["relations"]}
    assert {
        "ohlcv_1min",
        "ohlcv_5min",
        "ohlcv_monthly",
        "events",
        "tickstock.dirty",
    } <= sizes.keys()
    assert sizes["ohlcv_1min"]["chunks"] == (0 if engine.name == "postgres" else 1)
    assert sizes["ohlcv_1min"]["bytes"] > 0
    assert told["freshness"]["feed_clock"].isoformat() == "2025-11-24T15:01:00+00:00"
    assert told["freshness"]["dirty_half_hours"] == told["freshness"]["candles_to_scan"] == 1
