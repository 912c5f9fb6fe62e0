"""EmbeddedServer as its users see it: SQL, sharing, errors."""

import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.e2e.program import eventually, run
from tickstock.db.connection import fetch_value
from tickstock.embedded.cluster import Cluster, ClusterError
from tickstock.embedded.installations import Installation, choose_installation
from tickstock.embedded.paths import make_folder
from tickstock.embedded.server import EmbeddedServer, dsn_for, psql_command
from tickstock.errors import DatabaseUnavailableError, TickstockError

from .support import (
    INSTALLATIONS,
    Attached,
    identify,
    linux_only,
    may_look_into,
    one_inside_and_one_outside,
    postmaster_of,
    processes_of,
    root_only,
    tcp_sockets,
)

MakeServer = Callable[[Installation], EmbeddedServer]

every = pytest.mark.parametrize("installation", INSTALLATIONS, ids=identify)
both = pytest.mark.parametrize("installation", one_inside_and_one_outside(), ids=identify)


def one(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@every
def test_it_serves_sql_and_keeps_its_data(
    make_server: MakeServer, installation: Installation
) -> None:
    server = make_server(installation)
    with server.attached() as dsn:
        assert server.is_running()
        assert int(str(one(dsn, "show server_version_num"))) // 10000 == installation.version
        assert one(dsn, "show timezone") == "UTC"
        assert one(dsn, "show server_encoding") == "UTF8"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create database other")
        with psycopg.connect(dsn_for(dsn, "other")) as connection:
            if installation.has_timescaledb:
                connection.execute("create extension timescaledb")
                license_ = connection.execute("show timescaledb.license").fetchone()
                assert license_ == (
                    "timescale" if installation.engine == "community" else "apache",
                )
            connection.execute("create table kept as select 'Zürich' as place")
    assert not server.is_running()
    with server.attached() as dsn:
        assert one(dsn_for(dsn, "other"), "select place from kept") == "Zürich"


@pytest.mark.skipif(
    not any(each.engine == "community" for each in INSTALLATIONS), reason="no community edition"
)
def test_background_jobs_run(make_server: MakeServer) -> None:
    server = make_server(INSTALLATIONS[0])
    with server.attached() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create extension timescaledb")
        connection.execute("create table ran (at timestamptz)")
        connection.execute(
            "create procedure job(int, jsonb) language sql"
            " begin atomic insert into ran values (now()); end"
        )
        connection.execute("select add_job('job', '1 second')")
        # TimescaleDB's launcher is told of the extension; should it miss that, it looks once a minute,
        # and on a busy machine it has taken longer than that and a half.
        ran = "select exists (select from ran)"
        eventually(lambda: fetch_value(connection, ran), "the job runs", within=240)


@both
def test_psql_reaches_it(
    get_server: MakeServer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = get_server(installation)
    with server.attached() as dsn:
        installed = psql_command(installation, dsn)
        monkeypatch.setenv("PATH", "/nonexistent")
        carried = psql_command(installation, dsn)
        for command in (installed, carried):
            asked = [*command, "-X", "-A", "-t", "-c", "select 40 + 2"]
            ran = subprocess.run(asked, capture_output=True, text=True, check=True)
            assert ran.stdout.strip() == "42"


@linux_only
@both
def test_no_tcp_and_a_private_socket(get_server: MakeServer, installation: Installation) -> None:
    server = get_server(installation)
    with server.attached() as dsn:
        assert one(dsn, "show listen_addresses") == ""
        if not may_look_into(postmaster_of(server)):
            pytest.skip("the sockets of another account are seen with CAP_SYS_PTRACE only")
        assert tcp_sockets(processes_of(server)) == set()
        assert stat.S_IMODE((server.folder / "run").stat().st_mode) == 0o700
        assert stat.S_IMODE((server.folder / "data").stat().st_mode) == 0o700
    assert list((server.folder / "run").iterdir()) == []


@both
def test_the_last_one_out_stops_it(get_server: MakeServer, installation: Installation) -> None:
    server = get_server(installation)
    with Attached(server) as first, Attached(server) as second:
        started = first.server_started()
        assert second.server_started() == started
        first.leave()
        with server.attached() as dsn:
            second.leave()
            assert str(one(dsn, "select 1")) == "1"
        assert not server.is_running()


def test_a_long_path_gets_a_short_socket(
    make_server: MakeServer, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(open_folder / ("long, " * 30) / "data"))
    server = make_server(next(each for each in INSTALLATIONS if not each.root))
    with server.attached() as dsn:
        assert one(dsn, "select 1") == 1
    alias = Path(str(psycopg.conninfo.conninfo_to_dict(dsn)["host"]))
    assert alias.is_symlink()
    server.destroy()
    assert not alias.is_symlink()


@both
def test_environment_of_another_database_does_not_matter(
    get_server: MakeServer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "9", "PGDATABASE": "x", "PGUSER": "y", "PGDATA": "/z"}.items():
        monkeypatch.setenv(name, value)
    with get_server(installation).attached() as dsn:
        assert one(dsn, "select current_user || current_database()") == "postgrespostgres"


def test_data_of_another_version_is_refused(make_server: MakeServer) -> None:
    server = make_server(INSTALLATIONS[-1])
    make_folder(server.folder / "data")
    (server.folder / "data/PG_VERSION").write_text("9\n")
    with (
        pytest.raises(TickstockError, match=r"made by PostgreSQL 9, this is \d+; move") as failure,
        server.attached(),
    ):
        pass
    assert str(server.folder) in failure.value.message


@both
def test_a_server_that_cannot_start_says_why(
    make_server: MakeServer, installation: Installation
) -> None:
    server = make_server(installation)
    with server.attached():
        pass
    configuration = server.folder / "data/postgresql.conf"
    configuration.write_text("nonsense = 1\n")
    with pytest.raises(DatabaseUnavailableError, match="nonsense") as failure, server.attached():
        pass
    assert re.fullmatch(r"PostgreSQL \d+.* does not start: .*; see /.*/log\.", str(failure.value))
    assert not server.is_running()


def test_what_initdb_says_of_each_locale_is_told_once(tmp_path: Path) -> None:
    """As for a user without an entry in /etc/passwd, whom no locale helps."""
    where = str(tmp_path)
    initdb = tmp_path / "initdb"
    initdb.write_text(
        "#!/bin/sh\necho 'initdb: could not look up effective user ID 4321' >&2\nexit 1\n"
    )
    initdb.chmod(0o755)
    cluster = Cluster(
        folder=where, inside=where, socket_folder=where, bindir=where, root=None,
        timescaledb=False, durable=False, uid=None, gid=None,
    )  # fmt: skip
    with pytest.raises(ClusterError) as failure:
        cluster.initialize()
    assert str(failure.value) == "initdb: could not look up effective user ID 4321"


@pytest.fixture
def without_interrupts() -> Iterator[None]:
    """As what a script starts in the background; whatever it starts inherits that."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("without_interrupts")
def test_a_server_that_gives_no_answer(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to stop as soon as it has been started."""
    server = make_server(next(each for each in INSTALLATIONS if not each.root))
    monkeypatch.setattr("tickstock.embedded.server.START_SECONDS", 0.2)  # initdb takes longer
    with (
        pytest.raises(DatabaseUnavailableError, match="does not start: no answer in 0 s; see /"),
        server.attached(),
    ):
        pass


@root_only
def test_a_folder_that_its_account_cannot_enter(
    make_server: MakeServer, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (open_folder / "private").mkdir(mode=0o700)
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(open_folder / "private"))
    server = make_server(next(each for each in INSTALLATIONS if not each.root))
    with (
        pytest.raises(DatabaseUnavailableError, match="cannot enter it; set TICKSTOCK_DATA_DIR"),
        server.attached(),
    ):
        pass
    assert list(server.folder.iterdir()) == []


@root_only
def test_a_wheel_that_its_account_cannot_reach(
    make_server: MakeServer, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("TICKSTOCK_CACHE_DIR", str(closed / "cache"))
    wheel = next(each for each in INSTALLATIONS if each.is_wheel)
    package = wheel.bindir.parents[1]
    for each in package.parent.glob(f"{package.name}*"):
        (closed / each.name).symlink_to(each)
    inside = closed / wheel.bindir.relative_to(package.parent)
    server = make_server(replace(wheel, bindir=inside))
    with (
        pytest.raises(DatabaseUnavailableError, match="cannot run it; set TICKSTOCK_CACHE_DIR"),
        server.attached(),
    ):
        pass


@pytest.mark.parametrize("name", ["", "A", "../x", "a b", "x" * 41])
def test_a_name_that_is_no_folder_name(name: str) -> None:
    with pytest.raises(ValueError, match="a server's name"):
        EmbeddedServer(INSTALLATIONS[0], name)


def test_migrate_tells_what_it_applied_to_a_new_database(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been migrated already when the command gets it."""
    # Of the wheel, whose data is in this folder: a root file system's is in it, and may be somebody's.
    monkeypatch.setenv("TICKSTOCK_ENGINE", "postgres")
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(open_folder / "migrated"))
    server = EmbeddedServer(choose_installation(), "default")
    try:
        first, second = (run("db", "migrate").stdout for _ in range(2))
    finally:
        eventually(lambda: not server.is_running(), "it stops when nobody holds it")
        server.destroy()
    assert first.startswith("engine postgres: applied 001-tables.sql, ")
    assert first.endswith(", objects\n")
    assert second == "engine postgres: nothing to do\n"
