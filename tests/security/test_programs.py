"""The commands as roles with limits: a writer runs all that writes, a reader and a stranger are told."""

import re
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.e2e.program import (
    DEADLINE,
    KEY,
    NOTHING_WAITS,
    await_connected,
    run,
    running,
    stop_all,
    until,
)
from tests.e2e.test_load import flat_file
from tickstock.db.connection import connect, fetch_value
from tickstock.db.roles import Kind, apply, plan
from tickstock.embedded.redis import embedded_redis
from tickstock.errors import TickstockError
from tickstock.simulator import RandomMarket, Simulator

from .conftest import PASSWORD, Market

MARKET = RandomMarket(
    5,
    seed=3,
    start=datetime(2025, 12, 1, 14, 30, tzinfo=UTC),
    end=datetime(2025, 12, 1, 15, 40, tzinfo=UTC),
)
DAY_BEFORE = RandomMarket(
    3,
    seed=4,
    start=datetime(2025, 11, 28, 14, 30, tzinfo=UTC),
    end=datetime(2025, 11, 28, 15, 30, tzinfo=UTC),
)
SIMULATED = "select count(*) from ohlcv_1min where ts >= '2025-12-01'"
EXACT = """
select count(*) from (
  (select symbol, ts, high, low, volume, bars from ohlcv_1hour
   except select symbol, date_trunc('hour', ts), max(high), min(low), sum(volume), count(*)::integer
   from ohlcv_1min where ts >= '2025-11-20' group by 1, 2)) wrong where ts >= '2025-11-20'
"""


def test_a_writer_runs_ingest_scan_listen_load_backfill_and_refresh(
    market: Market, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        redis_url = stack.enter_context(embedded_redis())
        simulator = stack.enter_context(Simulator(MARKET, keys=[KEY], speed=0))
        settings = {
            "TICKSTOCK_DATABASE_URL": market.writer,
            "MASSIVE_API_KEY": KEY,
            "TICKSTOCK_REDIS_URL": redis_url,
            "TICKSTOCK_FEED_URL": simulator.url,
            "TICKSTOCK_REST_URL": simulator.rest_url,
        }
        with (
            running("scan", **settings) as scan,
            running("listen", "--json", "--consumer", "risk", **settings) as listen,
        ):
            await_connected(market.admin, "scan", "listen")
            with psycopg.connect(market.reader, autocommit=True) as reader:
                # Nobody can be kept from that; a consumer reads the table, and is only woken.
                reader.execute(
                    "select pg_notify('tickstock_patterns', '{\"pattern\": \"Forged\"}')"
                )
            with running("ingest", "--symbols", "*", **settings) as ingest:
                assert simulator.finished.wait(DEADLINE)
                until(market.admin, SIMULATED, len(simulator.sent))
                assert ingest.stop() == 0
            until(market.admin, NOTHING_WAITS)
            assert stop_all(scan, listen) == [0, 0]
        assert listen.output
        assert "Forged" not in "".join(listen.output)

        file = tmp_path / "2025-11-28.csv"
        bars = [bar for minute in DAY_BEFORE.minutes() for bar in minute.bars]
        file.write_bytes(flat_file(bars))
        for arguments in (
            ("load", str(file)),
            ("load", str(file)),  # again: by the way of merging
            ("backfill",),
            ("refresh",),
            ("scan", "--from", "2025-11-28", "--to", "2025-11-28"),
            ("db", "status"),
            ("gaps",),
            ("status",),
        ):
            done = run(*arguments, **settings)
            assert done.returncode == 0, (arguments, done)
            assert "may not" not in done.stderr + done.stdout, (arguments, done)
        checked = run("doctor", "--json", **settings)
        assert "may write all that ingest writes" in checked.stdout, checked

    with connect(market.writer, program="test") as conn:
        with conn.transaction():  # a correction of old bars, in the columnstore where there is one
            conn.execute("update ohlcv_1min set close = 10.25 where ts < '2025-11-01'")
        assert fetch_value(conn, "select count(*) from ohlcv_revisions where close = 11") > 0
        conn.execute("call ohlcv_refresh()")
        assert (
            fetch_value(conn, "select count(*) from tickstock.dirty d where granule < '2025-11-20'")
            == 0
        )
        assert fetch_value(conn, EXACT) == 0


def test_a_reader_runs_what_reads_and_is_told_of_the_rest(market: Market) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": market.reader}
    for arguments in (("db", "status"), ("gaps",), ("status", "--json"), ("explain", "1")):
        done = run(*arguments, **settings)
        assert done.returncode == 0, (arguments, done)
    for refused in (["refresh"], ["listen", "--consumer", "mine"]):
        done = run(*refused, **settings)
        assert done.returncode == 1, done
        assert len(done.stderr.splitlines()) == 1
        assert "this role may not do that: permission denied for" in done.stderr
        assert "tickstock db grant" in done.stderr
    told = run("db", "status", TICKSTOCK_DATABASE_URL=market.outsider)
    assert told.returncode == 1
    assert f"tickstock db grant reader {market.name('outsider')}" in told.stderr


def test_a_grant_says_what_it_does_and_again_is_harmless(market: Market, unique: str) -> None:
    name = f"ana {unique} 'x'; drop table ticks; -- \"é"
    settings = {"TICKSTOCK_DATABASE_URL": market.owner}
    arguments = ("db", "grant", "reader", name)
    missing = run(*arguments, **settings)
    assert missing.returncode == 1
    assert "set TICKSTOCK_ROLE_PASSWORD" in missing.stderr
    shown = run(*arguments, "--dry-run", TICKSTOCK_ROLE_PASSWORD=PASSWORD, **settings)
    assert shown.returncode == 0
    assert "login password '…';" in shown.stdout
    assert "statement_timeout" in shown.stdout
    with connect(market.admin, program="test") as conn:
        exists = "select exists (select from pg_roles where rolname = %s)"
        assert not fetch_value(conn, exists, name)
        try:
            done = run(*arguments, TICKSTOCK_ROLE_PASSWORD=PASSWORD, **settings)
            assert done.returncode == 0, done
            assert f"create the role {name}" in done.stdout
            stored = fetch_value(conn, "select rolpassword from pg_authid where rolname = %s", name)
            assert stored.startswith("SCRAM-SHA-256$")
            again = run(*arguments, **settings)
            assert again.returncode == 0
            assert "create" not in again.stdout
            assert fetch_value(
                conn, "select rolpassword from pg_authid where rolname = %s", name
            ) == stored  # fmt: skip
            said = "".join(d.stdout + d.stderr for d in (missing, shown, done, again))
            assert PASSWORD not in said
            assert "SCRAM" not in said
            with psycopg.connect(make_conninfo(market.admin, user=name)) as own:
                assert fetch_value(own, "show statement_timeout") == "30s"
                own.execute("select * from ohlcv_daily")
        finally:
            conn.execute(
                psycopg.sql.SQL("drop role if exists {}").format(psycopg.sql.Identifier(name))
            )
        assert fetch_value(conn, "select to_regclass('ticks')") is not None


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("reader", "", "can't be the name of a role"),
        ("reader", "x" * 64, "can't be the name of a role"),
        ("reader", "é" * 32, "can't be the name of a role"),
        ("reader", "a\nb", "can't be the name of a role"),
        ("reader", "tickstock_writer", "is the group itself"),
        ("reader", "public", 'role name "public" is reserved'),
        ("writer", "pg_mine", 'role name "pg_mine" is reserved'),
        ("writer", "postgres", "is a superuser"),
        ("reader", "{owner}", "owns the schema"),
        ("reader", "{writer}", "is a writer"),
        ("writer", "{reader}", "is a reader"),
    ],
)
def test_names_that_no_reader_or_writer_can_have(
    market: Market, kind: Kind, name: str, says: str
) -> None:
    for role in ("owner", "writer", "reader"):
        name = name.replace(f"{{{role}}}", market.name(role))
    with (
        connect(market.owner, program="test") as conn,
        pytest.raises((TickstockError, psycopg.errors.ReservedName), match=re.escape(says)),
        conn.transaction(),
    ):
        apply(conn, plan(conn, kind, name, PASSWORD))


def test_who_may_not_create_roles_is_told_what_to_do(market: Market, unique: str) -> None:
    with connect(market.admin, program="test") as conn:
        owner = psycopg.sql.Identifier(market.name("owner"))
        conn.execute(psycopg.sql.SQL("alter role {} nocreaterole").format(owner))
        try:
            done = run(
                "db", "grant", "reader", f"ana_{unique}",
                TICKSTOCK_DATABASE_URL=market.owner, TICKSTOCK_ROLE_PASSWORD=PASSWORD,
            )  # fmt: skip
        finally:
            conn.execute(psycopg.sql.SQL("alter role {} createrole").format(owner))
    assert done.returncode == 1
    assert f"{market.name('owner')} may not do this (create the role ana_{unique}" in done.stderr
    assert "createrole" in done.stderr
    assert "--dry-run" in done.stderr
    assert PASSWORD not in done.stderr
    assert "SCRAM" not in done.stderr
