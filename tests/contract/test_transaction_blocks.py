"""Procedures that commit as they go say so where they can't."""

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, fetch_value

CALLS = {
    "ohlcv_refresh": "call ohlcv_refresh()",
    "drop_bars": "call drop_bars('2000-01-01')",
    "ohlcv_keep_house": "call ohlcv_keep_house()",
}
LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"


@pytest.mark.parametrize("name", list(CALLS))
def test_in_a_transaction_block_they_say_what_to_do(
    url: str, conn: Connection[TupleRow], name: str
) -> None:
    with connect(url, program="test") as own:
        own.autocommit = False  # as psycopg is unless told otherwise
        with pytest.raises(psycopg.errors.ActiveSqlTransaction) as refused:
            own.execute(CALLS[name].encode())
        said = refused.value.diag
        assert said.message_primary == (
            f"{name}() commits as it goes: call it outside a transaction block"
        )
        assert "autocommit=True" in (said.message_hint or "")
        own.rollback()
        assert fetch_value(own, LOCKS) == 0, "others need not wait for the session's end"
    with pytest.raises(psycopg.errors.ActiveSqlTransaction), conn.transaction():
        conn.execute(f"do $$ begin {CALLS[name]}; end $$".encode())


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_under_an_older_snapshot_they_say_what_to_do(
    url: str, conn: Connection[TupleRow], level: str
) -> None:
    """drop_bars() would not see the mark of a late bar that it has waited for, and lose the bar."""
    with psycopg.connect(url, autocommit=True) as own:
        own.execute("select set_config('default_transaction_isolation', %s, false)", (level,))
        for what, statement in {
            **{f"{name}()": call for name, call in CALLS.items()},
            "truncate ohlcv_1min": "truncate ohlcv_1min",
            "a change of trading_days": "delete from trading_days where day = '2025-11-24'",
        }.items():
            with pytest.raises(psycopg.errors.InvalidTransactionState) as refused:
                own.execute(statement.encode())
            said = refused.value.diag
            assert (said.message_primary or "").startswith(f"{what} waits for others")
            assert "read committed" in (said.message_hint or "")
            assert fetch_value(own, LOCKS) == 0
        own.execute("set default_transaction_isolation = 'read committed'")
        own.execute("call ohlcv_keep_house()")
    assert fetch_value(conn, "select count(*) from trading_days where day = '2025-11-24'") == 1


def test_where_another_isolation_is_the_default_our_programs_have_their_own(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as own:
        name = sql.Identifier(own.info.dbname)
        own.execute(
            sql.SQL("alter database {} set default_transaction_isolation = serializable").format(
                name
            )
        )
    with connect(url, program="test") as conn:
        for call in CALLS.values():
            if "drop" not in call:
                conn.execute(call.encode())
        has_jobs = fetch_value(conn, "select tickstock_engine()") == "community"
    for job in ("refresh_job", "keep_house_job") if has_jobs else ():
        with psycopg.connect(url, autocommit=True) as worker:
            worker.execute(sql.SQL("call tickstock.{}(1, null)").format(sql.Identifier(job)))


@pytest.mark.parametrize("arguments", ["", "wait => false"])
def test_from_a_procedure_or_a_block_that_may_commit_they_are_called_as_ever(
    conn: Connection[TupleRow], arguments: str
) -> None:
    call = sql.SQL("call ohlcv_refresh({})").format(sql.SQL(arguments))
    conn.execute(call)
    conn.execute(call, prepare=True)
    conn.execute(sql.SQL("do $$ begin {}; end $$").format(call))


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_whatever_language_the_server_speaks(conn: Connection[TupleRow]) -> None:
    """What tells a block from none is what the server says: not words of ours."""
    conn.execute("set lc_messages = 'C'")
    assert (
        fetch_value(conn, "select tickstock.no_commit_here()") == "invalid transaction termination"
    )
    conn.execute("call tickstock.refuse_transaction_block('x')")
