"""Embedded servers under names and in folders of their own, removed afterwards."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.program import eventually
from tickstock.embedded.installations import Installation
from tickstock.embedded.server import EmbeddedServer

from .support import processes_of

MakeServer = Callable[[Installation], EmbeddedServer]

_NUMBERS = itertools.count()


def _new_server(installation: Installation) -> EmbeddedServer:
    name = f"test-{os.getpid()}-{next(_NUMBERS)}"
    return EmbeddedServer(installation, name, durable=False)


def _check_that_it_stops(server: EmbeddedServer) -> None:
    eventually(lambda: not server.is_running(), "the server stops")
    if Path("/proc/self").exists():
        eventually(lambda: not processes_of(server), "no process is left")


def _destroy(server: EmbeddedServer) -> None:
    server.destroy()
    assert not server.folder.exists()


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="tickstock-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_server(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeServer]:
    """Makes servers without data; afterwards, no process and no file of them may be left."""
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(open_folder))
    made: list[EmbeddedServer] = []

    def make(installation: Installation) -> EmbeddedServer:
        made.append(_new_server(installation))
        return made[-1]

    yield make
    for server in made:
        _check_that_it_stops(server)
        _destroy(server)


@pytest.fixture(scope="session")
def known_servers() -> Iterator[dict[Installation, EmbeddedServer]]:
    """One server per installation, whose data is made only once."""
    known: dict[Installation, EmbeddedServer] = {}
    yield known
    for server in known.values():
        _destroy(server)


@pytest.fixture
def get_server(
    open_folder: Path,
    known_servers: dict[Installation, EmbeddedServer],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakeServer]:
    """Servers that may hold data of earlier tests; afterwards, no process of them may be left."""
    monkeypatch.setenv("TICKSTOCK_DATA_DIR", str(open_folder))

    def get(installation: Installation) -> EmbeddedServer:
        if installation not in known_servers:
            server = known_servers[installation] = _new_server(installation)
            with server.attached():
                pass
        return known_servers[installation]

    yield get
    for server in known_servers.values():
        _check_that_it_stops(server)
