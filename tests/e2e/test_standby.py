"""A streaming standby, made by pg_basebackup: what analysts read there, and that it can take over."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from tests.conftest import SERVER_NAME, Engine, installation_of
from tests.contract.oracle import differences, read_snapshot
from tests.contract.test_upgrade import FILL
from tickstock.db.connection import connect, fetch_value
from tickstock.embedded.paths import make_folder
from tickstock.embedded.processes import server_account
from tickstock.embedded.server import EmbeddedServer, dsn_for

from .program import eventually, run
from .test_backup import client

pytestmark = pytest.mark.parametrize("engine", ["postgres", "community"], indirect=True)

VIEWS = """
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'v') and n.nspname in ('public', 'tickstock')
  and not exists (select from pg_depend d
                  where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
"""


@contextmanager
def standby(engine: Engine, url: str) -> Iterator[str]:
    """A standby of the server; yields the connection string of the same database there."""
    installation = installation_of(engine.name)
    if installation is None:
        pytest.skip("the server's own programs are needed")
    server = EmbeddedServer(installation, f"{SERVER_NAME}-standby", durable=False)
    server.destroy()  # what a killed run has left
    account = server_account(installation.root, server.folder / "data")
    make_folder(server.folder, 0o755)
    cluster = server._cluster(account)
    client(
        "pg_basebackup", url, engine, f"--pgdata={cluster.inside}/data",
        "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
    )  # fmt: skip
    if account:
        for each in (cluster.data, *cluster.data.rglob("*")):
            os.chown(each, account.uid, account.gid)
    process = cluster.start()
    try:
        there = dsn_for(server.dsn(), str(conninfo_to_dict(url)["dbname"]))
        eventually(lambda: process.poll() is None and answers(there), server.log_file.read_text())
        yield there
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        server.destroy()


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def await_replay(primary: Connection[TupleRow], there: Connection[TupleRow]) -> None:
    """Wait until the standby knows what the primary knows."""
    now = fetch_value(primary, "select pg_current_wal_insert_lsn()::text")
    eventually(
        lambda: fetch_value(there, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", now),
        "the standby follows",
    )


CALLS = (
    "candles('A', '5min')",
    "candles('A', '10 minutes')",
    "candles('A', '1min', last => 300)",
    "coverage('A', '2025-11-24')",
    "missing_minutes('A', '2025-11-24')",
    "latest_candles('5min')",
    "symbol_status()",
    "daily_returns('A', '2025-11-20', '2025-11-24')",
    "top_movers()",
    "latest_prices()",
    "active_symbols('2025-11-24')",
)
READERS = (
    ("status", "--symbols", "*"),
    ("db", "status"),
    ("gaps",),
    ("chart", "A", "5min"),
)
WRITERS = (
    ("db", "migrate"),
    ("refresh",),
    ("load", "-"),
    ("scan",),
    ("listen",),
)
CORRECT = "update ohlcv_1min set high = high + 7 where symbol = 'A' and ts > '2025-11-20'"


def test_analysts_read_there_and_it_takes_over(engine: Engine, url: str) -> None:
    with connect(url, program="test") as primary:
        primary.execute(FILL)
        primary.execute("call ohlcv_refresh()")
        primary.execute("call tickstock.to_columnstore('2025-11-14')")
        with standby(engine, url) as standby_url, connect(standby_url, program="test") as there:
            primary.execute(CORRECT)  # half hours are dirty: their candles are made there, at once
            await_replay(primary, there)
            snapshot = read_snapshot(primary)
            assert read_snapshot(there) == snapshot
            assert differences(snapshot) == []
            for (relation,) in there.execute(VIEWS).fetchall():
                there.execute(f"select * from {relation} limit 3".encode())
            for call in CALLS:
                assert there.execute(f"select * from {call}".encode()).fetchall(), call
            for command in READERS:
                done = run(*command, TICKSTOCK_DATABASE_URL=standby_url)
                assert done.returncode == 0, done
            for command in WRITERS:
                done = run(*command, TICKSTOCK_DATABASE_URL=standby_url)
                assert done.returncode == 3, done
                assert re.search("read-only|recovery", done.stderr.splitlines()[-1]), done
            there.execute("select pg_promote()")
            assert fetch_value(there, "select pg_is_in_recovery()") is False
            there.execute(CORRECT)
            for _ in range(2):
                assert differences(read_snapshot(there)) == []
                there.execute("call ohlcv_refresh()")
