"""What the tests of the embedded servers share: attaching processes, and looking at /proc."""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import pytest

from tickstock.embedded.installations import Installation, find_installations
from tickstock.embedded.server import EmbeddedServer

DEADLINE = 30.0
"""Seconds after which something that must happen has not happened."""

INSTALLATIONS = find_installations()

linux_only = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_ATTACH = """
import sys
import psycopg
from tickstock.embedded.installations import find_installations
from tickstock.embedded.server import EmbeddedServer
index, name, times = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
server = EmbeddedServer(find_installations()[index], name, durable=False)
for _ in range(times):
    with server.attached() as dsn, psycopg.connect(dsn) as connection:
        (started,) = connection.execute("select pg_postmaster_start_time()").fetchone()
        print(started.isoformat(), flush=True)
        if times == 1:
            sys.stdin.read()
"""


def identify(installation: Installation) -> str:
    place = "chroot" if installation.root else "wheel" if installation.is_wheel else "host"
    return f"{installation.engine}-{installation.version}-{place}"


def one_inside_and_one_outside() -> list[Installation]:
    """The best installation in a root file system, and the best that is not in one."""
    inside = [each for each in INSTALLATIONS if each.root]
    outside = [each for each in INSTALLATIONS if not each.root]
    return inside[:1] + outside[:1]


class Attached:
    """Another process that is attached to the server: until `leave`, or until it is killed.

    `under` is a command that runs it.
    """

    def __init__(self, server: EmbeddedServer, times: int = 1, under: tuple[str, ...] = ()) -> None:
        index = INSTALLATIONS.index(server.installation)
        self.process = subprocess.Popen(
            [*under, sys.executable, "-c", _ATTACH, str(index), server.name, str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Attached":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def server_started(self) -> str:
        """Wait until it is attached; when its server started."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1]
        return line

    def leave(self) -> list[str]:
        """Let it end by itself; the lines it still printed."""
        out, errors = self.process.communicate("", timeout=4 * DEADLINE)
        assert self.process.returncode == 0, errors
        return out.splitlines()

    def kill(self) -> None:
        """kill -9"""
        self.process.kill()
        self.process.communicate()


def keeper_of(server: EmbeddedServer) -> int:
    (found,) = [pid for pid in _processes() if _is_keeper(pid, server)]
    return found


def postmaster_of(server: EmbeddedServer) -> int:
    return int((server.folder / "data/postmaster.pid").read_text().splitlines()[0])


def processes_of(server: EmbeddedServer) -> list[int]:
    """The keeper and every process of PostgreSQL: those work in the data folder."""
    return [pid for pid in _processes() if _is_keeper(pid, server) or _works_in(pid, server)]


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _is_keeper(pid: int, server: EmbeddedServer) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"embedded.keeper" in command and f'"{server.folder}"'.encode() in command


def _works_in(pid: int, server: EmbeddedServer) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(server.folder)
    except OSError:
        return False


def may_look_into(pid: int) -> bool:
    """Not into another account's, as root of a container without CAP_SYS_PTRACE."""
    return bool(_open_files(pid))


def tcp_sockets(pids: list[int]) -> set[str]:
    """The TCP and UDP sockets that these processes hold."""
    names = ("tcp", "tcp6", "udp", "udp6")
    tables = [Path("/proc/net", name) for name in names if Path("/proc/net", name).exists()]
    lines = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    network = {f"socket:[{line[9]}]" for line in lines}
    held = {name for pid in pids for name in _open_files(pid)}
    assert any(name.startswith("socket:") for name in held)
    return network & held


def _open_files(pid: int) -> list[str]:
    try:
        return [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended, or closed one, meanwhile
        return []
