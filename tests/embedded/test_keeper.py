"""Whoever dies, however: nothing is left running, and the next start works."""

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.e2e.program import eventually
from tickstock.embedded.installations import Installation
from tickstock.embedded.processes import server_account
from tickstock.embedded.server import EmbeddedServer
from tickstock.errors import TickstockError

from .support import (
    INSTALLATIONS,
    Attached,
    identify,
    keeper_of,
    linux_only,
    one_inside_and_one_outside,
    postmaster_of,
    processes_of,
    root_only,
)

MakeServer = Callable[[Installation], EmbeddedServer]

pytestmark = linux_only
both = pytest.mark.parametrize("installation", one_inside_and_one_outside(), ids=identify)


def is_answering(server: EmbeddedServer) -> bool:
    with server.attached() as dsn, psycopg.connect(dsn) as connection:
        return connection.execute("select 1").fetchone() == (1,)


def outside() -> Installation:
    return next(each for each in INSTALLATIONS if not each.root)


@both
def test_kill_9_of_everyone_attached(get_server: MakeServer, installation: Installation) -> None:
    server = get_server(installation)
    with Attached(server) as first, Attached(server) as second:
        first.server_started()
        second.server_started()
        first.kill()
        assert processes_of(server)
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        second.kill()
        eventually(lambda: not processes_of(server), "keeper and server end")


@both
def test_kill_9_of_the_keeper(get_server: MakeServer, installation: Installation) -> None:
    server = get_server(installation)
    with Attached(server) as user:
        user.server_started()
        os.kill(keeper_of(server), signal.SIGKILL)
        eventually(lambda: not server.is_running(), "the keeper is dead")
        assert is_answering(server)  # a new keeper, although the old server may still be ending
    eventually(lambda: not processes_of(server), "the server ends")


@root_only
@both
def test_root_of_a_container(get_server: MakeServer, installation: Installation) -> None:
    """It lacks CAP_SYS_PTRACE, without which /proc does not tell where another account works."""
    server = get_server(installation)
    container = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
    with Attached(server, under=container) as first:
        first.server_started()
        os.kill(keeper_of(server), signal.SIGKILL)
        eventually(lambda: not server.is_running(), "the keeper is dead")
        with Attached(server, under=container) as second:
            second.server_started()


@both
def test_the_server_dies_with_its_keeper(
    get_server: MakeServer, installation: Installation
) -> None:
    server = get_server(installation)
    with Attached(server) as user:
        user.server_started()
        os.kill(keeper_of(server), signal.SIGKILL)
        eventually(lambda: not processes_of(server), "the server ends")


@both
def test_kill_9_of_server_and_keeper_loses_nothing(
    get_server: MakeServer, installation: Installation
) -> None:
    server = get_server(installation)
    with Attached(server) as user:
        user.server_started()
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("create table kept as select 7 as number")
            connection.commit()
            connection.execute("checkpoint")
        os.kill(keeper_of(server), signal.SIGSTOP)  # so that it cannot tidy up
        os.kill(postmaster_of(server), signal.SIGKILL)
        os.kill(keeper_of(server), signal.SIGKILL)
    assert (server.folder / "data/postmaster.pid").exists()
    with server.attached() as dsn, psycopg.connect(dsn) as connection:
        assert connection.execute("select number from kept").fetchone() == (7,)


@both
def test_sigterm_of_the_keeper_stops_the_server(
    get_server: MakeServer, installation: Installation
) -> None:
    server = get_server(installation)
    with server.attached():
        os.kill(keeper_of(server), signal.SIGTERM)
        eventually(lambda: not processes_of(server), "both end")


@both
def test_a_stale_pid_file_that_names_someone_else(
    get_server: MakeServer, installation: Installation
) -> None:
    server = get_server(installation)
    assert is_answering(server)
    account = server_account(installation.root, server.folder / "data")
    someone = subprocess.Popen(
        ["sleep", "600"], user=account.uid if account else None, extra_groups=None
    )
    try:
        stale = f"{someone.pid}\n{server.folder}/data\n1\n5432\n\n\n0 0\nready   \n"
        (server.folder / "data/postmaster.pid").write_text(stale)
        (server.folder / "run/.s.PGSQL.5432.lock").write_text(stale)
        assert is_answering(server)
        assert someone.poll() is None
    finally:
        someone.kill()
        someone.wait()


def test_kill_9_while_the_data_folder_is_made(make_server: MakeServer) -> None:
    server = make_server(outside())
    with Attached(server) as user:
        eventually((server.folder / "data.partial/PG_VERSION").exists, "initdb begins")
        os.kill(keeper_of(server), signal.SIGKILL)
        user.kill()
    assert is_answering(server)
    assert not (server.folder / "data.partial").exists()


def test_twenty_at_once(make_server: MakeServer) -> None:
    server = make_server(outside())
    users = [Attached(server) for _ in range(20)]
    try:
        assert len({user.server_started() for user in users}) == 1
        with ThreadPoolExecutor(len(users)) as pool:
            list(pool.map(Attached.leave, users))
        assert not server.is_running()
    finally:
        for user in users:
            user.kill()


def test_coming_and_going(get_server: MakeServer) -> None:
    """Starts meet stops all the time, and nobody is refused."""
    server = get_server(outside())
    users = [Attached(server, times=6) for _ in range(3)]
    with ThreadPoolExecutor(len(users)) as pool:
        starts = [line for lines in pool.map(Attached.leave, users) for line in lines]
    assert len(starts) == 18
    assert not server.is_running()


def test_threads_share_it_too(get_server: MakeServer) -> None:
    server = get_server(outside())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(is_answering, [server] * 8)) == [True] * 8
    assert not server.is_running()


def test_destroy_refuses_while_in_use(
    get_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = get_server(outside())
    with Attached(server) as user:
        user.server_started()
        with pytest.raises(TickstockError, match="in use"):
            server.destroy()
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        user.leave()
