"""Databases and sessions whose transactions keep their first snapshot: repeatable read, serializable.

What waits for others and then does not see what they have written would leave candles wrong for good.
"""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tests.contract.test_transaction_blocks import CALLS, LOCKS
from tickstock.db.connection import connect, fetch_value

FILL = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select %s, ts, 10, 12, 8, 11, 100
from generate_series(timestamptz '2025-11-26 17:00+00', '2025-11-26 22:00+00', '1 minute') ts
"""
CHANGES = {
    "a change of trading_days": (
        "update trading_days set closes_at = closes_at - interval '3 hours' where day = '2025-11-26'"
    ),
    "truncate ohlcv_1min": "truncate ohlcv_1min",
}
READ_COMMITTED = "set default_transaction_isolation = 'read committed'"


@pytest.fixture(params=["repeatable read", "serializable"])
def isolated(
    url: str, conn: Connection[TupleRow], request: pytest.FixtureRequest
) -> Iterator[Connection[TupleRow]]:
    """A session of psql, in a database that somebody has set so."""
    database = sql.Identifier(conn.info.dbname)
    alter = sql.SQL("alter database {} set default_transaction_isolation = {}")
    conn.execute(alter.format(database, request.param))
    with psycopg.connect(url, autocommit=True) as session:
        yield session


def check_refused(session: Connection[TupleRow], what: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InvalidTransactionState) as refused:
        session.execute(statement.encode())
    said = refused.value.diag
    assert said.message_primary is not None
    assert said.message_primary.startswith(f"{what} must see what others have just committed")
    assert READ_COMMITTED in (said.message_hint or "")


@pytest.mark.parametrize("name", list(CALLS))
def test_procedures_say_what_to_do(isolated: Connection[TupleRow], name: str) -> None:
    check_refused(isolated, f"{name}()", CALLS[name])
    assert fetch_value(isolated, LOCKS) == 0
    isolated.execute(READ_COMMITTED)
    isolated.execute("call ohlcv_refresh()")
    isolated.execute("call ohlcv_keep_house()")


@pytest.mark.parametrize("what", list(CHANGES))
def test_what_changes_candles_beside_their_bars_says_what_to_do(
    conn: Connection[TupleRow], isolated: Connection[TupleRow], what: str
) -> None:
    """Bars that came after its snapshot would keep the old session, or leave no mark."""
    conn.execute(FILL, ("A",))
    isolated.execute("begin")
    isolated.execute("select count(*) from trading_days")
    conn.execute(FILL, ("B",))
    conn.execute("call ohlcv_refresh()")
    check_refused(isolated, what, CHANGES[what])
    isolated.execute("rollback")
    assert differences(read_snapshot(conn)) == []
    isolated.execute(READ_COMMITTED)
    isolated.execute(CHANGES[what].encode())
    bars = fetch_value(conn, "select coalesce(sum(bars), 0) from ohlcv_daily")
    assert bars == (2 * 60 if "update" in CHANGES[what] else 0)


@pytest.mark.usefixtures("isolated")
def test_tickstock_s_own_sessions_are_as_ever(url: str) -> None:
    with connect(url, program="test") as own:
        own.execute(FILL, ("A",))
        own.execute(CHANGES["a change of trading_days"].encode())
        own.execute("call ohlcv_refresh()")
        own.autocommit = False
        assert fetch_value(own, "show transaction_isolation") == "read committed"


@pytest.mark.parametrize("engine", ["community"], indirect=True)
def test_jobs_of_timescaledb_work_all_the_same(
    conn: Connection[TupleRow], isolated: Connection[TupleRow]
) -> None:
    conn.execute(FILL, ("A",))
    assert fetch_value(conn, "select count(*) from tickstock.candles_5min") == 0
    jobs = "select job_id from timescaledb_information.jobs where proc_schema = 'tickstock'"
    for (job,) in conn.execute(jobs).fetchall():
        isolated.execute(sql.SQL("call run_job({})").format(job))
        isolated.execute("reset default_transaction_isolation")
    assert fetch_value(conn, "select count(*) from tickstock.candles_5min") == 60
