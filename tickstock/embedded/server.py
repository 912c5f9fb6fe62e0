"""A PostgreSQL server of tickstock's own: started by its first user, stopped after the last.

It is reached over a unix socket in a folder that only its account and root can enter; it listens
on no TCP port.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tickstock.embedded.cluster import Cluster, find_postmaster
from tickstock.embedded.installations import Installation, copy_of_wheel
from tickstock.embedded.keeper import BUSY, FAILED, READY
from tickstock.embedded.locks import FileLock, is_held
from tickstock.embedded.paths import data_dir, forget_socket_folder, make_folder, socket_folder
from tickstock.embedded.processes import Account, can_reach, libraries_of, server_account
from tickstock.errors import DatabaseUnavailableError, TickstockError

log = logging.getLogger(__name__)

START_SECONDS = 180.0
"""How long a start may take; recovery after a power failure is part of it."""
_LEAVE_SECONDS = 20.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_FOLDER_IN_ROOT = Path("/var/lib/tickstock")


def dsn_for(dsn: str, dbname: str) -> str:
    """The same server, another database."""
    return make_conninfo(dsn, dbname=dbname)


class EmbeddedServer:
    """A server of this installation with data of its own under this name.

    `durable=False` trades safety against power failures for speed (tests); when several processes
    attach, the one that starts the server decides.
    """

    def __init__(
        self, installation: Installation, name: str = "default", *, durable: bool = True
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: a server's name is 1 to 40 of a-z, 0-9, _ and -")
        self.installation = installation
        self.name = name
        self.durable = durable
        if installation.root:
            self._inside = _FOLDER_IN_ROOT / name
            self.folder = installation.root / self._inside.relative_to("/")
        else:
            kind = f"{installation.engine}-{installation.version}-{name}"
            self._inside = self.folder = data_dir() / "postgres" / kind

    @property
    def log_file(self) -> Path:
        """PostgreSQL's log."""
        return self.folder / "log"

    def dsn(self, dbname: str = "postgres") -> str:
        """A libpq connection string that works while someone is attached."""
        host = socket_folder(self.folder / "run")
        return make_conninfo(host=str(host), port=5432, user="postgres", dbname=dbname)

    def is_running(self) -> bool:
        """Whether a keeper lives: the server runs, starts or stops."""
        return self.folder.is_dir() and is_held(self.folder / "keeper.lock")

    @contextmanager
    def attached(self) -> Iterator[str]:
        """Have the server running for the length of the block; yields `dsn()`.

        Any number of processes and threads may be attached at once. Returns after the server has
        stopped if this was the last one. Raises DatabaseUnavailableError when it does not start.
        """
        account = server_account(self.installation.root, self.folder / "data")
        self._make_folder(account)
        try:
            with FileLock(self.folder / "users.lock") as users:
                self._ensure_running(self._cluster(account), users)
                yield self.dsn()
        finally:
            self._wait_if_last()

    def destroy(self) -> None:
        """Remove the server's data for good; refuses while anyone is attached."""
        if not self.folder.is_dir():
            return
        with FileLock(self.folder / "start.lock") as start:
            start.exclude()
            self._wait_if_last()
            if self.is_running() or not self._postmaster_ends():
                raise TickstockError(f"{self.folder}: the server is in use; stop its users first.")
            shutil.rmtree(self.folder)
        forget_socket_folder(self.folder / "run")

    def _postmaster_ends(self) -> bool:
        """Wait for a server whose keeper was killed."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while find_postmaster(self.folder / "data") is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _make_folder(self, account: Account | None) -> None:
        try:
            make_folder(self.folder, 0o700 if account is None else 0o755)
        except OSError as error:
            raise DatabaseUnavailableError(
                f"{self.folder}: cannot be made ({error.strerror});"
                " set TICKSTOCK_DATA_DIR to a folder of yours."
            ) from error
        if self.installation.root is None and not can_reach(self.folder, account):
            raise DatabaseUnavailableError(
                f"{self.folder}: the account that PostgreSQL runs as cannot enter it;"
                " set TICKSTOCK_DATA_DIR to a folder that others may pass through."
            )

    def _cluster(self, account: Account | None) -> Cluster:
        self._check_version()
        run = self.folder / "run"
        inside = self._inside / "run" if self.installation.root else socket_folder(run)
        return Cluster(
            folder=str(self.folder),
            inside=str(self._inside),
            socket_folder=str(inside),
            bindir=str(self._bindir(account)),
            root=str(self.installation.root) if self.installation.root else None,
            timescaledb=self.installation.has_timescaledb,
            durable=self.durable,
            uid=account.uid if account else None,
            gid=account.gid if account else None,
        )

    def _check_version(self) -> None:
        written = self.folder / "data" / "PG_VERSION"
        found = written.read_text().strip() if written.is_file() else None
        if found not in (None, str(self.installation.version)):
            raise TickstockError(
                f"{written.parent}: made by PostgreSQL {found}, this is"
                f" {self.installation.version}; move the folder away to start afresh,"
                " or convert it with pg_upgrade."
            )

    def _bindir(self, account: Account | None) -> Path:
        found = self.installation
        if found.root or can_reach(found.bindir / "postgres", account):
            return found.bindir
        if found.is_wheel:
            copy = copy_of_wheel(found)
            if can_reach(copy / "postgres", account):
                return copy
            raise DatabaseUnavailableError(
                f"{copy}: the account that PostgreSQL runs as cannot run it;"
                " set TICKSTOCK_CACHE_DIR to a folder that others may pass through."
            )
        raise DatabaseUnavailableError(
            f"{found.bindir}: the account that PostgreSQL runs as cannot run it;"
            " install PostgreSQL where all accounts can, or give --database-url."
        )

    def _ensure_running(self, cluster: Cluster, users: FileLock) -> None:
        """Register as a user and see to it that the server accepts connections."""
        deadline = time.monotonic() + START_SECONDS
        with FileLock(self.folder / "start.lock") as start:
            start.exclude()
            users.share()  # waits for a keeper that is shutting the server down
            while time.monotonic() < deadline:
                if not is_held(self.folder / "keeper.lock"):
                    if self._start_keeper(cluster):
                        return
                elif cluster.is_ready():
                    return
                time.sleep(0.02)
        raise DatabaseUnavailableError(
            f"{self.installation} did not start in {START_SECONDS:.0f} s; see {self.log_file}."
        )

    def _start_keeper(self, cluster: Cluster) -> bool:
        """Whether the new keeper's server is ready; False when another keeper was there before."""
        log.debug("starting %s in %s", self.installation, self.folder)
        with self.log_file.open("ab") as errors:
            keeper = subprocess.Popen(
                [sys.executable, "-P", "-m", "tickstock.embedded.keeper", cluster.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_keeper_environment(),
                start_new_session=True,
            )
        try:
            answer, _ = keeper.communicate(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            answer = f"no answer in {START_SECONDS:.0f} s"
        if answer in (READY, BUSY):
            return answer == READY
        reason = answer.removeprefix(FAILED).strip().replace("\n", " ") or "its keeper died"
        raise DatabaseUnavailableError(
            f"{self.installation} does not start: {reason}; see {self.log_file}."
        )

    def _wait_if_last(self) -> None:
        """Return when the server has stopped, or at once if others use it."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        with FileLock(self.folder / "users.lock") as users:
            while self.is_running() and time.monotonic() < deadline:
                # Neither lock can be had while the keeper shuts down; both, before it notices.
                alone = users.try_exclude()
                users.release()
                if not alone and users.try_share():
                    return
                time.sleep(0.02)


def _keeper_environment() -> dict[str, str]:
    """Ours, and this very tickstock on the path, however it was found."""
    package_home = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([package_home, others] if others else [package_home])
    return {**os.environ, "PYTHONPATH": path}


def psql_command(installation: Installation, dsn: str) -> list[str]:
    """The command line of an interactive psql: this machine's, else the installation's own."""
    found = shutil.which("psql")
    return [found, dsn] if found else client_command(installation, "psql", dsn)


def client_command(installation: Installation, program: str, dsn: str) -> list[str]:
    """A command line of the installation's own psql, pg_dump, …; options may follow."""
    path = str(installation.bindir / program)
    if installation.root is None:
        libraries = libraries_of(installation.bindir)
        setting = [f"LD_LIBRARY_PATH={libraries}"] if libraries else []
        return ["/usr/bin/env", *setting, path, f"--dbname={dsn}"]
    host = Path(str(conninfo_to_dict(dsn)["host"])).resolve()
    inside = Path("/") / host.relative_to(installation.root.resolve())
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    return [
        chroot,
        str(installation.root),
        path,
        f"--dbname={make_conninfo(dsn, host=str(inside))}",
    ]
