"""A database of version 0.1, full of data, brought up to date: the same as a new one with that data.

`release_0_1/objects` holds that version's sql/objects as they were; its migrations were 001 to 004,
which are frozen.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.conftest import Engine
from tests.contract.oracle import OFFICIAL, differences, read_snapshot
from tickstock import sqlfiles
from tickstock.bars import Bar, Refusal
from tickstock.db.connection import connect, fetch_value, require_schema
from tickstock.db.migrate import migrate
from tickstock.db.writer import Counts, write_bars
from tickstock.errors import SchemaMissingError, TickstockError

RELEASE_0_1 = Path(__file__).parent / "release_0_1"

# Everything in our two schemas that is not an extension's own, by name. Each query: name, definition.
OURS = """
  {oid} in (select c.oid from pg_{kind} c
            where c.{kind_prefix}namespace in ('public'::regnamespace, 'tickstock'::regnamespace))
  and not exists (select from pg_depend where deptype = 'e'
                  and classid = 'pg_{kind}'::regclass and objid = {oid})
"""
RELATIONS = OURS.format(oid="r.oid", kind="class", kind_prefix="rel")
SCHEMA = {
    "relations": f"""
        select r.oid::regclass, r.relkind, r.reloptions, r.relpersistence, r.relacl, r.relreplident,
          obj_description(r.oid, 'pg_class')
        from pg_class r where r.relkind <> 'i' and {RELATIONS}""",
    "columns": f"""
        select r.oid::regclass || '.' || a.attname, row_number() over (partition by r.oid order by a.attnum),
          format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attstattarget,
          pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum)
        from pg_class r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
        where r.relkind <> 'i' and {RELATIONS}""",
    "constraints": f"""
        select r.oid::regclass || ' ' || c.conname, pg_get_constraintdef(c.oid), c.convalidated
        from pg_constraint c join pg_class r on r.oid = c.conrelid where {RELATIONS}""",
    "indexes": f"""
        select i.indexrelid::regclass, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered
        from pg_index i join pg_class r on r.oid = i.indrelid where {RELATIONS}""",
    "triggers": f"""
        select r.oid::regclass || ' ' || t.tgname, pg_get_triggerdef(t.oid), t.tgenabled
        from pg_trigger t join pg_class r on r.oid = t.tgrelid where not t.tgisinternal and {RELATIONS}""",
    "views": f"""
        select r.oid::regclass, pg_get_viewdef(r.oid)
        from pg_class r where r.relkind = 'v' and {RELATIONS}""",
    "routines": f"""
        select p.oid::regprocedure, pg_get_functiondef(p.oid), p.proacl, obj_description(p.oid, 'pg_proc')
        from pg_proc p where {OURS.format(oid="p.oid", kind="proc", kind_prefix="pro")}""",
    "types": f"""
        select t.oid::regtype, t.typtype from pg_type t
        where {OURS.format(oid="t.oid", kind="type", kind_prefix="typ")}""",
    "settings": """
        select unnest(setconfig) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
        where d.datname = current_database()""",
    "timeframes": "select timeframe, t::text from timeframes t",
    "calendar": "select day, d::text from trading_days d",
    "policy": "select 'policy', p::text from storage_policy p",
    "migrations": "select name, sha256, engine from tickstock.migrations",
}
# Materialized hypertables are named by number.
OF_TIMESCALEDB = {
    "hypertables": """
        select s.relation, d.column_name, d.time_interval, h.num_dimensions
        from tickstock.storage s
        join timescaledb_information.hypertables h
          on s.stored_in = format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
        join timescaledb_information.dimensions d using (hypertable_schema, hypertable_name)""",
}
OF_COMMUNITY = {
    "continuous aggregates": """
        select view_name, materialized_only, compression_enabled, view_definition
        from timescaledb_information.continuous_aggregates""",
    "columnstore": """
        select s.relation, h.segmentby, h.orderby, h.index from tickstock.storage s
        join timescaledb_information.hypertable_columnstore_settings h on h.hypertable = s.stored_in""",
    "jobs": """
        select proc_schema || '.' || proc_name, schedule_interval, max_runtime, max_retries, retry_period,
          scheduled, fixed_schedule, config
        from timescaledb_information.jobs where proc_schema in ('public', 'tickstock')""",
}


def schema_of(conn: Connection[TupleRow], engine: str) -> dict[str, list[str]]:
    queries = dict(SCHEMA)
    if engine != "postgres":
        queries |= OF_TIMESCALEDB
    if engine == "community":
        queries |= OF_COMMUNITY
    return {
        what: sorted(" | ".join(map(str, row)) for row in conn.execute(query).fetchall())
        for what, query in queries.items()
    }


@pytest.fixture
def release_0_1(tmp_path: Path) -> Path:
    """sql/ as it was."""
    today = sqlfiles.sql_folder()
    (tmp_path / "migrations").mkdir()
    for file in (today / "migrations").iterdir():
        if file.name < "005":
            shutil.copy(file, tmp_path / "migrations")
    for name in ("history.sql", "before-migrations.sql"):
        shutil.copy(today / name, tmp_path)
    shutil.copytree(RELEASE_0_1 / "objects", tmp_path / "objects")
    return tmp_path


MONDAY = datetime(2025, 11, 24, 14, 25, tzinfo=UTC)
CLOSING_EARLY = datetime(2025, 11, 10, 14, 30, tzinfo=UTC), datetime(2025, 11, 10, 20, tzinfo=UTC)
FILL = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select symbol, ts, p, p + 2, p - 1, p + 1, p * 3, p + 0.5, nullif(p, 150)
from unnest(array['A', 'BRK.B', 'C']) symbol,
  generate_series(timestamptz '2025-10-27', '2025-11-24 19:17', '19 minutes') ts,
  lateral (select 100 + extract(epoch from ts)::bigint / 60 % 97 + length(symbol) as p) x
"""
# Half hours that are refreshed and half hours that are not, corrected, deleted and late ones of both.
CHANGES = (
    "call ohlcv_refresh()",
    "update ohlcv_1min set close = high, volume = volume + 1 where symbol = 'A' and ts < '2025-10-30'",
    "delete from ohlcv_1min where symbol = 'C' and ts between '2025-10-31' and '2025-11-04'",
    "call ohlcv_refresh()",
    "update ohlcv_1min set low = 0 where symbol = 'BRK.B' and ts > '2025-11-21'",
    "delete from ohlcv_1min where symbol = 'A' and ts between '2025-11-05 15:00' and '2025-11-05 20:00'",
    "update trading_days set closes_at = closes_at - interval '1 hour' where day = '2025-11-10'",
    "insert into events (pattern, symbol, timeframe, ts, direction, price, details, published_at)"
    " select 'Doji', 'A', '5min', ts, 'neutral', close, '{\"body\": 0.1}',"
    " case when volume > 500 then timestamptz '2025-11-25' end from ohlcv_5min where symbol = 'A'",
    "select tickstock.take_candles(100)",
)
KEPT = ("ohlcv_1min", "events", "refused_bars", "tickstock.dirty")
"""What the release had, and nobody but its users fills."""
OTHER_COLUMNS = (
    "{session,complete,change,strength,parameters,candles_from,lag,late,retracted_at"
    ",published_at,since,came}"
)
"""What is new since, or gone."""
UNPUBLISHED = "select min(id) from events where published_at is null"
WAITING_THEN = (
    "select timeframe, symbol, ts, ready_at::text from tickstock.scan_queue order by 1, 2, 3, 4"
)
WAITING_NOW = """
select timeframe, symbol, ts, ready_at::text
from tickstock.scan_queue, unnest(symbols, starts) u (symbol, ts) order by 1, 2, 3, 4
"""


def fill(conn: Connection[TupleRow]) -> None:
    conn.execute("set timezone = 'UTC'")
    conn.execute(FILL)
    bars = [Bar("NEW", MONDAY + timedelta(minutes=i), 5.25, 6, 4, 5, 70 + i, 5.1) for i in range(9)]
    bars.append(bars[0]._replace(low=7))
    refusals = [Refusal("feed", "no bar at all", "{}")]
    written = write_bars(conn, bars, source="test", refusals=refusals)
    assert written.counts == Counts(received=11, inserted=9, refused=2)
    for statement in CHANGES:
        conn.execute(statement)


def rows(conn: Connection[TupleRow], relation: str) -> list[TupleRow]:
    """As far as 0.1 had these columns, and they are still there."""
    return conn.execute(
        f"select to_jsonb(r) - '{OTHER_COLUMNS}'::text[] from {relation} r order by 1"
    ).fetchall()


def test_an_upgraded_database_is_like_a_new_one(
    engine: Engine, empty_url: str, release_0_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_url = engine.create()
    migrate(new_url)
    with connect(empty_url, program="test") as old, connect(new_url, program="test") as new:
        with monkeypatch.context() as past:
            past.setattr(sqlfiles, "sql_folder", lambda: release_0_1)
            migrate(empty_url)
            if engine.name == "community":
                # A job may come in between, or not.
                old.execute("select _timescaledb_functions.stop_background_workers()")
            fill(old)
            kept = {relation: rows(old, relation) for relation in KEPT}
            waiting = old.execute(WAITING_THEN).fetchall()
            unpublished = fetch_value(old, UNPUBLISHED)
            candles = {tf: rows(old, f"ohlcv_{tf}") for tf in ("5min", "4hour", "daily", "monthly")}
        assert all(kept.values())
        assert waiting
        with pytest.raises(SchemaMissingError, match="lacks 005"):
            require_schema(old)

        migrate(empty_url)
        require_schema(old)
        new.execute("delete from trading_days where day = '2025-11-10'")
        new.execute("insert into trading_days values ('2025-11-10', %s, %s)", CLOSING_EARLY)
        wanted, got = schema_of(new, engine.name), schema_of(old, engine.name)
        for what in wanted:
            assert got[what] == wanted[what], what
        assert all(wanted.values())

        assert {relation: rows(old, relation) for relation in KEPT} == kept
        assert fetch_value(old, "select count(came) from ohlcv_1min") == 0, "nobody knows when"
        assert old.execute(WAITING_NOW).fetchall() == waiting
        assert old.execute("select count(*) from events where change <> id").fetchone() == (0,)
        assert fetch_value(old, "select up_to from tickstock.publishing") == unpublished - 1
        assert {tf: rows(old, f"ohlcv_{tf}") for tf in candles} == candles
        copy_bars(old, new)
        calendar = OFFICIAL.with_day(MONDAY.date() - timedelta(days=14), CLOSING_EARLY)
        snapshot = read_snapshot(old)
        assert differences(snapshot, calendar) == []
        assert snapshot == read_snapshot(new)
        for statement in ("call ohlcv_refresh()", "call tickstock.to_columnstore('infinity')"):
            old.execute(statement)
        assert read_snapshot(old) == snapshot
    engine.drop(new_url)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_what_stands_in_the_way_of_an_upgrade_is_named(
    empty_url: str, release_0_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as past:
        past.setattr(sqlfiles, "sql_folder", lambda: release_0_1)
        migrate(empty_url)
    with connect(empty_url, program="test") as conn:
        for view in ("my_events", "my_other"):
            conn.execute(f"create view {view} as select * from events".encode())
        with pytest.raises(TickstockError) as refused:
            migrate(empty_url)
        for view in ("my_events", "my_other"):
            assert f"view {view} depends on column published_at of table events" in str(
                refused.value
            )
            conn.execute(f"drop view {view}".encode())
        migrate(empty_url)
        require_schema(conn)


def copy_bars(source: Connection[TupleRow], target: Connection[TupleRow]) -> None:
    columns = "(symbol, ts, open, high, low, close, volume, vwap, trades)"
    with (
        source.cursor().copy(f"copy (select {columns[1:-1]} from ohlcv_1min) to stdout") as out,
        target.cursor().copy(f"copy ohlcv_1min {columns} from stdin") as into,
    ):
        for data in out:
            into.write(data)
