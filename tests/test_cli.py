"""The command line when something is wrong: clear about it, and silent about secrets."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import tickstock
from tickstock.db.connection import connect, fetch_value, parse
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import client
from tickstock.simulator import RandomMarket, Simulator
from tickstock.timeframes import TIMEFRAMES

from .e2e.hardship import market
from .e2e.program import (
    DEADLINE,
    KEY,
    command,
    environment,
    eventually,
    run,
    running,
    stop_all,
    until,
)
from .scan.support import on_one_engine
from .simulator.client import Client

PASSWORD = "s3cr3t"  # noqa: S105 - it opens nothing

INGEST = ("ingest", "--symbols", "AAPL")
NEEDS_A_SCHEMA = [
    INGEST,
    ("scan",),
    ("listen",),
    ("listen", "--consumer", "c"),
    ("explain", "1"),
    ("chart", "AAPL", "5min"),
    ("patterns", "list"),
    ("load", "-"),
    ("refresh",),
    ("demo", "--seconds", "5"),
    ("db", "status"),
    ("status",),
]


def failure(code: int, *arguments: str, **settings: str) -> str:
    """Run a command that must fail with this code; the one line in which it says why."""
    done = run(*arguments, **settings)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert KEY not in said
    assert PASSWORD not in said
    *before, last = done.stderr.splitlines()
    assert last.startswith("Error: "), said
    assert not [line for line in before if line.startswith("Error")]
    return last


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else takes meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_output_that_finds_no_room() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("patterns", "list", "--json"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("Error: the output can't be written: No space left on device. ")


def test_version() -> None:
    assert run("--version").stdout == f"tickstock, version {tickstock.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ingets",), "No such command 'ingets'"),
        (INGEST, "no API key: set MASSIVE_API_KEY"),
        (("ingest", "--api-key", KEY), "which symbols?"),
        (("ingest", "--symbols", "", "--api-key", KEY), "--symbols '' names no ticker"),
        (("ingest", "--symbols", " , ", "--api-key", KEY), "--symbols ' , ' names no ticker"),
        (("load",), "Missing argument 'FILE...'"),
        (("simulate", "--replay"), "--replay takes the files to play"),
        (("simulate", "file.csv"), "--replay takes the files to play"),
        (
            ("simulate", "--fault", "dorp=0.1"),
            ": dorp: no such fault; there are duplicate,",
        ),
        (
            ("simulate", "--fault", "drop=2"),
            ": drop=2.0: the rate of a fault is from 0 to 1",
        ),
        (("simulate", "--start", "0001-01-01"), ": give a day of the years 1970 to 2999"),
        (("simulate", "--start", "9999-12-31"), ": give a day of the years 1970 to 2999"),
        (("simulate", "--fault", "drop"), ": drop is not of the form drop=0.01"),
        (("simulate", "--symbols", "1000000"), ": 1000000 is not in the range"),
        (("listen", "--exec-timeout", "nan"), ": nan is not a number of seconds"),
        (("listen", "--exec-timeout", "inf"), ": inf is not in the range"),
        (("refresh", "--every", "1e9"), ": 1000000000.0 is not in the range"),
    ],
    ids=str,
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    assert said in failure(2, *arguments)


@pytest.mark.parametrize("arguments", [*NEEDS_A_SCHEMA, ("db", "migrate")], ids=" ".join)
def test_no_database(arguments: tuple[str, ...]) -> None:
    with closed_port() as port:
        url = f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/market"
        line = failure(3, *arguments, TICKSTOCK_DATABASE_URL=url, MASSIVE_API_KEY=KEY)
    assert line.startswith(f"Error: no database at 127.0.0.1:{port}, database market: ")
    assert "--database-url (TICKSTOCK_DATABASE_URL)" in line


@pytest.mark.parametrize(
    "url",
    [
        PASSWORD,
        f"postgres:/me:{PASSWORD}@127.0.0.1/market",
        f"http://me:{PASSWORD}@127.0.0.1/market",
        f"postgresql://me:x/{PASSWORD}@127.0.0.1/market",
        f"postgresql://me:x@{PASSWORD}@127.0.0.1/market",
        f"postgresql://me:%{PASSWORD}@127.0.0.1/market",
        f"host=127.0.0.1 password='{PASSWORD}",
        f"host=127.0.0.1 password=x {PASSWORD}=y",
        f"postgresql://me:{PASSWORD}@127.0.0.1/market?connect_timeout=soon",
    ],
)
def test_a_database_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        parse(url)
    assert caught.value.message.startswith("the database URL can't be read (")
    assert PASSWORD not in caught.value.message


@pytest.mark.parametrize("arguments", [("db", "status"), ("db", "shell")], ids=" ".join)
def test_a_bad_database_url(arguments: tuple[str, ...]) -> None:
    line = failure(3, *arguments, "--database-url", f"postgres:/me:{PASSWORD}@127.0.0.1/market")
    assert line.startswith("Error: the database URL can't be read (")


@on_one_engine
@pytest.mark.parametrize("arguments", NEEDS_A_SCHEMA, ids=" ".join)
def test_no_schema(empty_url: str, arguments: tuple[str, ...]) -> None:
    url = make_conninfo(empty_url, password=PASSWORD)
    line = failure(4, *arguments, TICKSTOCK_DATABASE_URL=url, MASSIVE_API_KEY=KEY)
    assert line.startswith(
        "Error: the database has no tickstock schema: run `tickstock db migrate`"
    )


def test_the_database_tells_what_becomes_of_old_bars(url: str) -> None:
    with connect(url, program="test") as conn:
        engine = fetch_value(conn, "select tickstock_engine()")
        for policy, kept, moved in (
            ("keep_bars = null, columnstore_after = '14 days'", "for ever", "after 14 days"),
            ("keep_bars = '2 years', columnstore_after = null", "730 days", "never"),
        ):
            conn.execute(f"update storage_policy set {policy}".encode())
            told = run("db", "status", TICKSTOCK_DATABASE_URL=url).stdout
            assert re.search(rf"^ bars are kept +{kept}$", told, re.MULTILINE)
            lines = re.findall(r"^ into the columnstore +(.+)$", told, re.MULTILINE)
            assert lines == ([moved] if engine == "community" else [])


@on_one_engine
def test_a_limit_of_the_servers(url: str) -> None:
    """The database has not gone away, and to start again would not help."""
    with connect(url, program="test") as conn:
        conn.execute(
            sql.SQL("alter database {} set statement_timeout = '2s'").format(
                sql.Identifier(conn.info.dbname)
            )
        )
        with conn.transaction():
            conn.execute("lock table tickstock.migrations")
            line = failure(1, "db", "status", TICKSTOCK_DATABASE_URL=url)
    assert "due to statement timeout" in line
    assert "raise it with `alter role`" in line


@on_one_engine
@pytest.mark.parametrize("variable", ["MASSIVE_API_KEY", "POLYGON_API_KEY"])
def test_the_wrong_key(url: str, variable: str) -> None:
    settings = {variable: KEY, "TICKSTOCK_DATABASE_URL": url}
    with Simulator(RandomMarket(2), keys=["another"]) as simulator:
        line = failure(5, *INGEST, "--feed-url", simulator.url, **settings)
    assert "refuses the API key (auth_failed: authentication failed)" in line


@on_one_engine
def test_no_feed(url: str) -> None:
    with closed_port() as port:
        settings = {
            "MASSIVE_API_KEY": KEY,
            "TICKSTOCK_DATABASE_URL": url,
            "TICKSTOCK_FEED_URL": f"ws://127.0.0.1:{port}/stocks",
        }
        line = failure(6, *INGEST, **settings)
    assert line.startswith(f"Error: No feed at ws://127.0.0.1:{port}/stocks: connection refused.")


@pytest.mark.parametrize(
    "redis_url",
    [
        PASSWORD,
        f"http://me:{PASSWORD}@127.0.0.1:1/0",
        f"redis://me:{PASSWORD}/x@127.0.0.1:1/0",
        f"redis://me:{PASSWORD}#x@127.0.0.1:1/0",
        f"redis://me:{PASSWORD}@127.0.0.1:1/0?colour=red",
        f"redis://127.0.0.1:1/0?password={PASSWORD}&socket_timeout=soon",
    ],
)
def test_a_redis_url_that_is_none_is_not_repeated(redis_url: str) -> None:
    with pytest.raises(TickstockError) as caught:
        client(redis_url)
    assert caught.value.message.startswith("--redis-url (TICKSTOCK_REDIS_URL) can't be read;")
    assert PASSWORD not in caught.value.message


@on_one_engine
@pytest.mark.parametrize("arguments", [INGEST, ("scan",), ("listen",)], ids=" ".join)
def test_a_bad_redis_url(url: str, arguments: tuple[str, ...]) -> None:
    settings = {"MASSIVE_API_KEY": KEY, "TICKSTOCK_DATABASE_URL": url}
    line = failure(1, *arguments, TICKSTOCK_REDIS_URL=f"no://me:{PASSWORD}@redis", **settings)
    assert line.startswith("Error: --redis-url (TICKSTOCK_REDIS_URL) can't be read; expected")


def test_no_redis_to_listen_to() -> None:
    with closed_port() as port:
        address = f"redis://127.0.0.1:{port}/0"
        for url in (address.replace("//", f"//me:{PASSWORD}@"), f"{address}?password={PASSWORD}"):
            line = failure(1, "listen", "--redis-url", url)
            assert line.startswith(f"Error: no Redis at {address}: ")


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(1, "simulate", "--port", str(port))
    assert line == (
        f"Error: port {port} on 127.0.0.1 is in use; choose another, or 0 for any that is free"
    )


def test_a_replay_of_nothing() -> None:
    assert "nowhere.csv: no such file" in failure(1, "simulate", "--replay", "nowhere.csv")


def test_the_simulator_misbehaves_as_it_is_told() -> None:
    options = ("--port", "0", "--symbols", "2", "--fault", "max_connections_new=1")
    with running("simulate", *options) as simulate:
        eventually(lambda: len(simulate.output) == 2, "the addresses are told")
        url, rest = (line.split()[0] for line in simulate.output)
        assert rest == url.replace("ws://", "http://").removesuffix("/stocks")
        with Client(url) as client:
            client.login("simulator").subscribe("AM.*")
            assert client.ending()[1] == 1008
        assert simulate.stop() == 0
        assert simulate.output[-1] == "faults: max_connections_new 1\n"


def test_a_folder_of_patterns_that_is_not_there() -> None:
    assert "no folder nowhere" in failure(1, "scan", "--patterns", "nowhere")


@pytest.mark.parametrize("variable", ["TICKSTOCK_DATA_DIR", "TICKSTOCK_CACHE_DIR"])
def test_a_folder_in_the_home_of_nobody(variable: str) -> None:
    settings = {"TICKSTOCK_ENGINE": "postgres", variable: "~no-such-account/x"}
    said = failure(2, "db", "status", **settings)
    assert said == (
        f"Error: {variable} is ~no-such-account/x: there is no such account."
        f" Set {variable} to the path of a folder"
    )


@on_one_engine
def test_neither_key_nor_password_are_ever_told(url: str) -> None:
    settings = {
        "MASSIVE_API_KEY": KEY,
        "TICKSTOCK_DATABASE_URL": make_conninfo(url, password=PASSWORD),
        "TICKSTOCK_REDIS_URL": f"redis://me:{PASSWORD}@127.0.0.1:1/0",
    }
    with (
        Simulator(market(5, 300), keys=[KEY], speed=600) as simulator,
        running("simulate", "--port", "0", "--verbose") as simulate,
        running("scan", "--verbose", **settings) as scan,
        running(
            *INGEST, "--symbols", "*", "--verbose", "--feed-url", simulator.url, **settings
        ) as ingest,
    ):
        until(url, "select events_to_publish > 0 from tickstock.freshness")
        ingest.await_error("Redis does not take bars")
        scan.await_error("Redis does not take events")
        simulate.await_error("simulator listens")
        assert stop_all(simulate, scan, ingest) == [0, 0, 0]
    told = [*scan.errors, *ingest.errors]
    for arguments in (("db", "status"), ("db", "migrate"), ("refresh",)):
        done = run(*arguments, "--verbose", **settings)
        assert done.returncode == 0
        told += [done.stdout, done.stderr]
    assert not [line for line in told if PASSWORD in line or KEY in line]


@on_one_engine
def test_migrate_twice_then_status(empty_url: str) -> None:
    first, second = (run("db", "migrate", TICKSTOCK_DATABASE_URL=empty_url) for _ in range(2))
    assert first.stdout.startswith("engine postgres: applied 001-tables.sql, ")
    assert second.stdout == "engine postgres: nothing to do\n"

    text = run("db", "status", TICKSTOCK_DATABASE_URL=empty_url).stdout
    told = json.loads(run("db", "status", "--json", TICKSTOCK_DATABASE_URL=empty_url).stdout)
    assert text.startswith(f"postgres: PostgreSQL {told['versions']['postgresql']}, schema of")
    assert told["engine"] == told["schema_made_for"] == "postgres"
    assert told["versions"]["tickstock"] == tickstock.__version__
    assert told["versions"]["timescaledb"] is None
    assert told["freshness"]["feed_clock"] is None
    assert re.search(r"^ feed's clock +no bar yet$", text, re.MULTILINE)
    relations = {relation["relation"]: relation for relation in told["relations"]}
    assert set(relations) >= {f"ohlcv_{timeframe}" for timeframe in TIMEFRAMES} | {"events"}
    for name, relation in relations.items():
        assert relation["bytes"] > 0
        assert re.search(rf"^ {re.escape(name)} +[\d?]", text, re.MULTILINE)
    assert relations["events"]["approximate_rows"] is None, "nobody has counted"
    assert re.search(r"^ events +\? ", text, re.MULTILINE)
    with connect(empty_url, program="test") as conn:
        conn.execute("analyze events")
    text = run("db", "status", TICKSTOCK_DATABASE_URL=empty_url).stdout
    assert re.search(r"^ events +0 ", text, re.MULTILINE)


@pytest.mark.parametrize("path", ["app", "", "app, public"])
def test_a_search_path_of_ones_own(empty_url: str, path: str) -> None:
    with connect(empty_url, program="test") as conn:
        conn.execute("create schema app")
        conn.execute("create table app.events (mine integer)")
        alter = sql.SQL("alter database {} set search_path = {}")
        # A list of names, not one text.
        names = sql.SQL(path or "''")
        conn.execute(alter.format(sql.Identifier(conn.info.dbname), names))
    assert run("db", "migrate", TICKSTOCK_DATABASE_URL=empty_url).returncode == 0
    for arguments in (("status",), ("db", "status"), ("gaps",), ("scan", "--from", "2025-11-24")):
        done = run(*arguments, TICKSTOCK_DATABASE_URL=empty_url)
        assert done.returncode == 0, done.stderr
    assert list(tickstock.events(database_url=empty_url)["pattern"]) == []


@on_one_engine
def test_libpqs_own_variables_name_the_database(url: str) -> None:
    given = {
        "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE",
        "password": "PGPASSWORD",
    }  # fmt: skip
    settings = {given[name]: str(value) for name, value in conninfo_to_dict(url).items()}
    told = json.loads(run("db", "status", "--json", **settings).stdout)
    assert told["engine"] == "postgres"


@on_one_engine
def test_a_shell_where_no_psql_is_on_the_path(url: str, tmp_path: Path) -> None:
    done = run("db", "shell", "-Atc", "select 6 * 7", "--database-url", url, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


@on_one_engine
def test_ctrl_c_in_the_shell_is_psqls_and_the_password_is_not_in_its_arguments(url: str) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": make_conninfo(url, password=PASSWORD)}
    shell = subprocess.Popen(
        command("db", "shell", "-c", "select pg_sleep(60)"),
        env=environment(**settings),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until(url, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'", 1)
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
    assert len(children) == 1
    assert PASSWORD.encode() not in Path(f"/proc/{children[0]}/cmdline").read_bytes()
    assert f"PGPASSWORD={PASSWORD}".encode() in Path(f"/proc/{children[0]}/environ").read_bytes()
    os.killpg(shell.pid, signal.SIGINT)
    _, said = shell.communicate(timeout=DEADLINE)
    assert b"canceling statement due to user request" in said
    assert b"Aborted!" not in said
    assert shell.returncode == 1  # psql's own
