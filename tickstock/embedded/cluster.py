"""A PostgreSQL data folder and its server program, as the keeper handles them."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tickstock.embedded.processes import Account, before_exec, libraries_of, works_in

SOCKET_NAME = ".s.PGSQL.5432"
_READY_LINE = 7  # of postmaster.pid; pg_ctl waits for it in the same way
_ORPHAN_SECONDS = 60.0
_LOG_LIMIT = 10_000_000
_LINE_PREFIX = re.compile(r"^[-\d]+ [\d:.]+ \w+ \[\d+\]\s+")

# The first that the server and the system have. PostgreSQL's own, since 17, compares texts several
# times faster than the system's, in the same order.
_LOCALES = (
    ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"),
    ("--locale=C.UTF-8",),
    ("--locale=C",),
)

_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
    "log_destination": "stderr",
    "logging_collector": "off",
}
# TimescaleDB wants a worker for each database that has it, besides those that run its jobs; the
# test suite makes many databases.
_TIMESCALEDB_SETTINGS = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    "timescaledb.max_background_workers": "64",
    "max_worker_processes": "96",
}
_CARELESS_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class ClusterError(Exception):
    """The server does not start; the text is what PostgreSQL says about it."""


def _pid_file(data: Path) -> list[str]:
    """The lines of postmaster.pid; none when it is missing or half written."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []
    return lines if lines and lines[0].strip().isdigit() else []


def find_postmaster(data: Path) -> int | None:
    """The process id of the living server of this data folder, as far as this system tells."""
    lines = _pid_file(data)
    return int(lines[0]) if lines and works_in(int(lines[0]), data) is not False else None


@dataclass(frozen=True)
class Cluster:
    """All that the keeper needs to know. Paths are this machine's, except `bindir` and `inside`.

    `folder` holds `data`, `run` (the socket), `log` and the lock files; `inside` is the same folder
    as seen from inside `root`; `socket_folder` is what the server is told to use for its socket.
    """

    folder: str
    inside: str
    socket_folder: str
    bindir: str
    root: str | None
    timescaledb: bool
    durable: bool
    uid: int | None
    gid: int | None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Cluster":
        return cls(**json.loads(text))

    @property
    def data(self) -> Path:
        return Path(self.folder) / "data"

    @property
    def log(self) -> Path:
        return Path(self.folder) / "log"

    @property
    def account(self) -> Account | None:
        return None if self.uid is None or self.gid is None else Account(self.uid, self.gid)

    def private_folder(self, name: str) -> Path:
        """A folder that only the server's account (and root) can enter."""
        folder = Path(self.folder) / name
        folder.mkdir(exist_ok=True)
        if self.account:
            os.chown(folder, self.account.uid, self.account.gid)
        folder.chmod(0o700)
        return folder

    def shorten_log(self) -> None:
        """Keep one older log once the log has grown large."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_name("log.1"))

    def log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def complaint(self, offset: int) -> str:
        """The last three lines that the log got since `offset`, without their times, each once."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            file.seek(offset)
            lines = dict.fromkeys(_LINE_PREFIX.sub("", line).strip() for line in file)
        return " / ".join([line for line in lines if line][-3:]) or "it says nothing"

    def is_ready(self) -> bool:
        """Whether a postmaster of this data folder accepts connections."""
        lines = _pid_file(self.data)
        ready = len(lines) > _READY_LINE and lines[_READY_LINE].strip() == "ready"
        return ready and find_postmaster(self.data) is not None

    def initialize(self) -> None:
        """Make the data folder, whole or not at all. Raises ClusterError."""
        if self.data.exists():
            return
        offset = self.log_size()
        if not any(self._initdb(*options) for options in _LOCALES):
            raise ClusterError(self.complaint(offset))
        (Path(self.folder) / "data.partial").rename(self.data)

    def _initdb(self, *locale: str) -> bool:
        shutil.rmtree(Path(self.folder) / "data.partial", ignore_errors=True)
        self.private_folder("data.partial")
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", *locale]
        if not self.durable:
            options.append("--no-sync")
        where = f"{self.inside}/data.partial"
        ran = self._spawn("initdb", [*options, "-D", where], signal.SIGKILL)
        return ran.wait() == 0

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the server; its parent's death shuts it down."""
        self.private_folder("run")
        self._end_previous()
        settings = dict(_SETTINGS)
        # Quoted, because the setting is a list; the path may hold a comma.
        settings["unix_socket_directories"] = f'"{self.socket_folder}"'
        if self.timescaledb:
            settings |= _TIMESCALEDB_SETTINGS
        if not self.durable:
            settings |= _CARELESS_SETTINGS
        if self.root is not None:
            # Nothing is mounted on /dev/shm in there.
            settings["dynamic_shared_memory_type"] = "sysv"
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        where = f"{self.inside}/data"
        return self._spawn("postgres", ["-D", where, *options], signal.SIGINT)

    def _spawn(
        self, program: str, options: list[str], death_signal: signal.Signals
    ) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [f"{self.bindir}/{program}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                preexec_fn=before_exec(self.root, self.account, death_signal),
            )

    def _environment(self) -> dict[str, str]:
        """Nothing of the caller's PG... or LC_... variables."""
        libraries = None if self.root else libraries_of(Path(self.bindir))
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C",
            **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {}),
        }

    def _end_previous(self) -> None:
        """Stop a postmaster that outlived its keeper, and forget one that is dead.

        PostgreSQL would refuse to start when the number in a stale postmaster.pid belongs to some
        other living process of the same account.
        """
        pid = find_postmaster(self.data)
        if pid is not None:
            if not works_in(pid, self.data):
                return  # it may be anyone: let PostgreSQL decide
            self._end(pid)
        for stale in (self.data / "postmaster.pid", *(Path(self.folder) / "run").iterdir()):
            stale.unlink(missing_ok=True)

    def _end(self, pid: int) -> None:
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            deadline = time.monotonic() + _ORPHAN_SECONDS
            while works_in(pid, self.data) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not works_in(pid, self.data):
                return
        raise ClusterError(f"an earlier server, process {pid}, does not end")
