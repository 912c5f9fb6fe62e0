"""What each role may and can't do, by the catalogue and by trying."""

from contextlib import suppress

import psycopg
import pytest
from psycopg import sql

from tests.e2e.program import eventually
from tickstock.db.connection import connect, fetch_value
from tickstock.db.migrate import migrate
from tickstock.errors import TickstockError

from .conftest import Market

# What a writer may besides reading, by hand: not read from the schema's own list.
WRITES = {
    "public.ohlcv_1min": {"INSERT", "UPDATE"},
    "public.refused_bars": {"INSERT"},
    "public.ticks": {"INSERT"},
    "public.feed_stretches": {"INSERT", "UPDATE"},
    "public.backfills": {"INSERT", "UPDATE", "DELETE"},
    "public.minutes_complete": {"INSERT"},
    "public.patterns": {"INSERT", "UPDATE"},
    "public.events": {"INSERT", "UPDATE"},
    "public.consumers": {"INSERT", "UPDATE"},
    "tickstock.doubts": {"INSERT", "DELETE"},
    "tickstock.scan_queue": {"INSERT", "DELETE"},
    "tickstock.scan_shards": {"UPDATE"},
    "tickstock.publishing": {"INSERT", "UPDATE"},
}
CALLS = {
    "ohlcv_refresh", "thin_marks", "move_recent", "refresh_batch",
    "prepare_incoming", "merge_incoming", "prepare_ticks", "merge_ticks", "doubt",
    "open_stretch", "hold_stretch", "extend_stretch", "close_stretch", "complete_minute", "settle",
    "forget_told_by_all", "take_shards", "take_candles", "record_events",
    "begin_publishing", "refuse_transaction_block", "no_commit_here", "let_go",
}  # fmt: skip
RELATIONS = """
select n.nspname || '.' || c.relname, p.privilege
from pg_class c join pg_namespace n on n.oid = c.relnamespace
cross join unnest('{SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER}'::text[]) p (privilege)
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not in ('pg_catalog', 'information_schema')
  and n.nspname not like '%%timescaledb%%' and n.nspname not like 'pg_t%%'
  and has_table_privilege(%s, c.oid, p.privilege)
"""
ANYWHERE = """
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not like 'pg_t%%'
  and c.oid <> 'pg_settings'::regclass
  and has_table_privilege(%s, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
"""
ROUTINES = """
select p.oid::regprocedure::text, p.proname, p.prosecdef, p.provolatile in ('i', 's') and p.prokind = 'f',
  has_function_privilege(%s, p.oid, 'EXECUTE'), p.proconfig
from pg_proc p
where p.pronamespace in ('public'::regnamespace, 'tickstock'::regnamespace)
  and not exists (
    select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
"""
SEQUENCES = """
select c.relname from pg_class c
where c.relkind = 'S' and c.relnamespace in ('public'::regnamespace, 'tickstock'::regnamespace)
  and case c.relkind when 'S' then has_sequence_privilege(%s, c.oid, 'USAGE, SELECT, UPDATE') end
"""


def rights(conn: psycopg.Connection[tuple[object, ...]], role: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for relation, privilege in conn.execute(RELATIONS, (role,)):
        found.setdefault(str(relation), set()).add(str(privilege))
    return found


def test_every_relation_gives_each_role_what_it_needs_and_no_more(market: Market) -> None:
    with connect(market.admin, program="test") as conn:
        owned = rights(conn, market.name("owner"))
        assert {"public.ohlcv_1min", "public.feed_gaps", "tickstock.dirty"} <= owned.keys()
        assert rights(conn, market.name("outsider")) == {}
        assert rights(conn, market.name("reader")) == {name: {"SELECT"} for name in owned}
        assert rights(conn, market.name("writer")) == {
            name: {"SELECT"} | WRITES.get(name, set()) for name in owned
        }
        # Chunks, and what is behind continuous aggregates, too.
        for role in ("reader", "outsider"):
            assert conn.execute(ANYWHERE, (market.name(role),)).fetchall() == []


def test_every_routine_may_be_called_by_whom_it_is_for(market: Market) -> None:
    with connect(market.admin, program="test") as conn:
        for role, calls in (("outsider", None), ("reader", set()), ("writer", CALLS)):
            for signature, name, _, reads, may, _ in conn.execute(ROUTINES, (market.name(role),)):
                wanted = calls is not None and (bool(reads) or name in calls)
                assert may == wanted, f"{role} and {signature}"


def test_routines_with_the_owners_rights_have_a_fixed_search_path(market: Market) -> None:
    with connect(market.admin, program="test") as conn:
        definers = {
            str(name): (may, settings)
            for _, name, definer, _, may, settings in conn.execute(
                ROUTINES, (market.name("writer"),)
            )
            if definer
        }
    assert {settings[0] for _, settings in definers.values()} == {"search_path=pg_catalog, pg_temp"}
    # Of these a writer calls three, none of which takes a name or a value into its statements.
    assert {name for name, (may, _) in definers.items() if may} == {
        "thin_marks", "move_recent", "refresh_batch",
    }  # fmt: skip


def test_sequences_are_the_owners_but_for_the_number_of_a_change(market: Market) -> None:
    with connect(market.admin, program="test") as conn:
        for role, wanted in (
            ("outsider", []),
            ("reader", []),
            ("writer", [("events_change_seq",)]),
        ):
            assert conn.execute(SEQUENCES, (market.name(role),)).fetchall() == wanted


def test_a_reader_may_select_everything(market: Market) -> None:
    with connect(market.reader, program="test") as conn:
        for relation in rights(conn, market.name("reader")):
            conn.execute(
                sql.SQL("select * from {} limit 3").format(sql.Identifier(*relation.split(".")))
            )
        for call in (
            "candles('AAPL', '10 minutes')",
            "coverage('AAPL', '2025-11-24')",
            "missing_minutes('AAPL', '2025-11-24')",
            "latest_candles('5min')",
            "symbol_status()",
            "event_candles(1, after => 5)",
            "daily_returns('AAPL', '2025-11-24', '2025-11-24')",
            "latest_prices()",
            "session_of(now())",
            "feed_clock()",
            "is_trading_day('2025-11-28')",
        ):
            assert conn.execute(f"select * from {call}").fetchall(), call
        # From the columnstore, and from what a correction has marked.
        for relation, days in (("ohlcv_1min", 2), ("ohlcv_5min", 2), ("ohlcv_daily", 2)):
            query = sql.SQL(
                "select count(distinct ts::date) from {} where ts < '2025-11-25'"
            ).format(sql.Identifier(relation))
            assert conn.execute(query).fetchone() == (days,)


NOBODY = (  # but the owner
    "delete from ohlcv_1min",
    "truncate ohlcv_1min",
    "drop table ohlcv_1min cascade",
    "alter table ohlcv_1min drop constraint ohlcv_1min_prices",
    "alter table ohlcv_1min disable trigger user",
    "create trigger mine before insert on ohlcv_1min execute function tickstock.after_write()",
    "update trading_days set closes_at = closes_at - interval '3 hours' where day = '2025-11-24'",
    "delete from trading_days where day = '2025-11-24'",
    "insert into timeframes values ('x''; drop table ticks; --', 10, '1 minute', 'all', null)",
    "update storage_policy set keep_bars = '14 days'",
    "insert into tickstock.dirty (symbol, granule) values ('AAPL', now())",
    "delete from tickstock.dirty",
    "update ohlcv_revisions set close = 1",
    "delete from refused_bars",
    "delete from events",
    "update tickstock.candles_5min set close = 1",
    "update tickstock.migrations set sha256 = ''",
    "create table public.mine (i int)",
    "create view tickstock.mine as select 1",
    # What runs with the owner's rights, fed with rows of one's own.
    "create temp table mine (symbol text, ts timestamptz);"
    " create trigger mine after insert on mine referencing new table as new_bars"
    " for each statement execute function tickstock.after_write()",
    "create schema mine",
    "create or replace function session_of(ts timestamptz) returns text language sql return 'regular'",
    "alter function session_of(timestamptz) owner to current_user",
    "comment on table ohlcv_1min is 'mine'",
    "call drop_bars(now() - interval '1 year')",
    "call ohlcv_keep_house()",
    "call tickstock.to_columnstore(now())",
    "select tickstock.set_bars_since(now())",
    "select tickstock.rebuild_session_of()",
    "select tickstock.rematerialize('5min', '{AAPL}', array[now()])",
    "select tickstock.apply_rights()",
    "grant tickstock_writer to tickstock_reader",
    "create role mine",
    "alter role current_user superuser",
    "alter role current_user createrole",
    "alter system set log_statement = 'all'",
    "copy (select 1) to program 'cat'",
    "copy ohlcv_1min to '/tmp/mine'",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select * from pg_authid",
    "select setval('events_change_seq', 1)",
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and usename like 'owner%'",
)
NO_READER = (
    "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
    " values ('AAPL', '2025-11-25', 1, 1, 1, 1, 1)",
    "copy ohlcv_1min from stdin",
    "update ohlcv_1min set volume = volume",
    "update events set pattern = 'Mine'",
    "update patterns set enabled = false",
    "insert into consumers (consumer, heard) values ('mine', 0)",
    "update consumers set heard = 0",
    "insert into backfills (symbol, starts, ends, source) values ('*', '2025-01-01', '2025-02-01', 'mine')",
    "insert into refused_bars (source, reason, payload) values ('a', 'b', 'c')",
    "delete from tickstock.scan_queue",
    "select from tickstock.scan_shards for update",
    "begin; lock table ohlcv_1min in share mode",
    "create temp table mine (i int)",
    "call ohlcv_refresh()",
    "call tickstock.prepare_incoming()",
    "select tickstock.merge_incoming('mine')",
    "select tickstock.refresh_batch('infinity', 1000000, 1)",
    "select tickstock.take_candles(1)",
    "select tickstock.record_events('{}', '[]', '{}', '{}', '', '{}', '{}', '{}', '{}', '{}', '{}', '[]')",
    "call tickstock.begin_publishing()",
    "select tickstock.open_stretch('mine', 'AM', null)",
    "select nextval('events_change_seq')",
)
TIMESCALEDB = (
    "select drop_chunks('ohlcv_1min', older_than => now())",
    "select set_chunk_time_interval('ohlcv_1min', interval '1 day')",
    "select create_hypertable('events', by_range('ts'))",
)
COMMUNITY = (
    "call refresh_continuous_aggregate('tickstock.candles_5min', null, null)",
    "select alter_job(job_id, scheduled => false) from timescaledb_information.jobs"
    " where proc_schema = 'tickstock'",
    "select delete_job(job_id) from timescaledb_information.jobs where proc_schema = 'tickstock'",
    "drop materialized view tickstock.candles_monthly",
    "alter materialized view tickstock.candles_5min set (timescaledb.materialized_only = false)",
)


def is_refused(url: str, statement: str) -> None:
    """It fails for want of rights, whatever else may be wrong with it, and changes nothing."""
    with psycopg.connect(url, autocommit=True) as conn:
        try:
            if statement.endswith("from stdin"):
                with conn.cursor().copy(statement):
                    pass
            else:
                conn.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return
        except psycopg.Error as error:
            pytest.fail(f"{statement}: {type(error).__name__}: {error}")
    pytest.fail(f"nobody refused: {statement}")


@pytest.mark.parametrize("role", ["reader", "writer", "outsider"])
def test_what_only_the_owner_may(market: Market, role: str) -> None:
    with psycopg.connect(market.admin) as conn:
        engine = fetch_value(conn, "select tickstock_engine()")
    statements = list(NOBODY)
    statements += NO_READER if role != "writer" else ()
    statements += TIMESCALEDB if engine != "postgres" else ()
    statements += COMMUNITY if engine == "community" else ()
    before = snapshot(market)
    with psycopg.connect(market.owner):  # a session of his that could be ended
        for statement in statements:
            is_refused(getattr(market, role), statement)
    with (
        psycopg.connect(getattr(market, role), autocommit=True) as conn,
        # To grant what one has without the right to grant it is a warning.
        suppress(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("grant select, insert on events to public")
    with psycopg.connect(market.admin) as conn:
        assert rights(conn, market.name("outsider")) == {}
    assert snapshot(market) == before
    with pytest.raises(TickstockError, match="not allowed to install the schema"):
        migrate(getattr(market, role))


def snapshot(market: Market) -> object:
    with connect(market.owner, program="test") as conn:
        return conn.execute(
            "select (select count(*) from ohlcv_1min), (select count(*) from ohlcv_5min),"
            " (select count(*) from tickstock.dirty),"
            " (select array_agg(e) from events e), (select sum(hashtext(t::text)) from trading_days t),"
            " (select array_agg(p) from storage_policy p), tickstock.bars_since()::text"
        ).fetchall()


def test_an_outsider_reads_nothing(market: Market) -> None:
    for statement in (
        "select * from ohlcv_1min",
        "select * from ohlcv_daily",
        "select * from events",
        "select * from tickstock.dirty",
        "select * from candles('AAPL', '5 minutes')",
        "select feed_clock()",
        "select session_of(now())",
    ):
        is_refused(market.outsider, statement)


def test_a_readers_statement_ends_in_time(market: Market) -> None:
    with psycopg.connect(market.reader) as conn:
        assert fetch_value(conn, "show statement_timeout") == "30s"
        assert fetch_value(conn, "show idle_in_transaction_session_timeout") == "1min"
    set_to = sql.SQL("alter role {} in database {} set statement_timeout = {}")
    with connect(market.owner, program="test") as owner:
        role, database = sql.Identifier(market.name("reader")), sql.Identifier(owner.info.dbname)
        owner.execute(set_to.format(role, database, "100ms"))
        with (
            psycopg.connect(market.reader) as conn,
            pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"),
        ):
            conn.execute(
                "select count(*) from ohlcv_1min a, ohlcv_1min b, ohlcv_1min c, ohlcv_1min d"
            )
        owner.execute(set_to.format(role, database, "30s"))
    with psycopg.connect(market.writer) as conn:
        assert fetch_value(conn, "show statement_timeout") == "0"


def test_the_owner_may_all_of_it(market: Market) -> None:
    """And he waits for others' snapshots, though PostgreSQL tells him little of their sessions."""
    older = "select tickstock.has_older_snapshots((select pg_snapshot_xmax(pg_current_snapshot())::xid))"
    with (
        connect(market.owner, program="test") as owner,
        psycopg.connect(market.reader) as reader,
    ):
        eventually(lambda: not fetch_value(owner, older), "no snapshot of others is left")
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select 1 from events")
        owner.execute("update storage_policy set keep_bars = keep_bars")
        assert fetch_value(owner, older)
        reader.rollback()
        eventually(lambda: not fetch_value(owner, older), "the reader's snapshot is gone")
        owner.execute("update trading_days set opens_at = opens_at where day = '2025-11-24'")
        owner.execute("call ohlcv_refresh()")
        owner.execute("call ohlcv_keep_house()")
        owner.execute("call drop_bars('2025-11-01')")
        assert (
            fetch_value(
                owner, "select count(distinct ts::date) from ohlcv_1min where ts < '2025-11-25'"
            )
            == 1
        )
        assert fetch_value(owner, "select count(*) from ohlcv_daily where ts < '2025-11-25'") == 4


def test_rights_come_back_with_the_next_migration(market: Market) -> None:
    with connect(market.owner, program="test") as conn:
        before = rights(conn, market.name("reader")), rights(conn, market.name("writer"))
        conn.execute("grant delete on ohlcv_1min to tickstock_writer, public")
        conn.execute("revoke select on events from tickstock_reader")
        conn.execute("grant execute on procedure drop_bars(timestamptz) to public")
        conn.execute("create table tickstock.newer (i int)")
        conn.execute("create function tickstock.newer() returns int language sql stable return 1")
        assert migrate(market.owner).applied == []
        assert fetch_value(conn, "select tickstock.apply_rights()") == 0
        now = rights(conn, market.name("reader")), rights(conn, market.name("writer"))
        assert [each.pop("tickstock.newer") for each in now] == [{"SELECT"}] * 2
        assert now == before
        assert rights(conn, market.name("outsider")) == {}
        is_refused(market.outsider, "call drop_bars(now())")
        is_refused(market.outsider, "select tickstock.newer()")
        with psycopg.connect(market.reader) as reader:
            reader.execute("select tickstock.newer()")
        # An administrator's migration gives what it makes to the owner, not to the administrator.
        conn.execute("drop view tickstock.rights")
        conn.execute("delete from tickstock.migrations where name = 'objects'")
        assert migrate(market.admin).applied == ["objects"]
        owner = (
            "select relowner::regrole::text from pg_class where oid = 'tickstock.rights'::regclass"
        )
        assert fetch_value(conn, owner) == market.name("owner")
        conn.execute("drop table tickstock.newer")
        conn.execute("drop function tickstock.newer()")
