"""The keeper: a small process that is PostgreSQL's parent for as long as anyone uses the server.

Everyone attached holds a shared lock on the file `users.lock`, which the kernel drops when they
die. Once the keeper gets the exclusive one, nobody is left: it shuts the server down and ends. If
the keeper itself is killed, the kernel tells the server to shut down (Linux).
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tickstock.embedded.cluster import Cluster, ClusterError
from tickstock.embedded.locks import FileLock

READY, BUSY, FAILED = "ready", "busy", "failed"

_STARTING_INTERVAL = 0.02
_SERVING_INTERVAL = 0.2
_BUSY_SECONDS = 2.0
_SHUTDOWN_SECONDS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 20.0), (signal.SIGKILL, 20.0))


class Keeper:
    """One server's parent."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told_to_stop = False
        self._report_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True

    def run(self) -> None:
        folder = Path(self._cluster.folder)
        with FileLock(folder / "keeper.lock") as mine, FileLock(folder / "users.lock") as users:
            if not mine.try_exclude(_BUSY_SECONDS):
                self._report(BUSY)
                return
            try:
                self._serve(users)
            except (ClusterError, OSError) as error:
                self._report(f"{FAILED} {error}")

    def _report(self, text: str) -> None:
        """Answer whoever started us, if they still listen; only the first answer counts."""
        if not self._report_to.closed:
            with suppress(BrokenPipeError):
                self._report_to.write(text)
                self._report_to.close()

    def _serve(self, users: FileLock) -> None:
        self._cluster.shorten_log()
        self._cluster.initialize()
        offset = self._cluster.log_size()
        server = self._cluster.start()
        ready = False
        while server.poll() is None:
            if self._told_to_stop or users.try_exclude():
                _shut_down(server)
                return
            if not ready and self._cluster.is_ready():
                ready = True
                self._report(READY)
            time.sleep(_SERVING_INTERVAL if ready else _STARTING_INTERVAL)
        if not ready:
            raise ClusterError(self._cluster.complaint(offset))


def _shut_down(server: "subprocess.Popen[bytes]") -> None:
    """Fast, then immediate, then by force."""
    for how, seconds in _SHUTDOWN_SECONDS:
        server.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            return


def _become_a_daemon() -> None:
    """Leave the starter, who then has no child to wait for. Standard output stays the answer."""
    if os.fork() > 0:
        os._exit(0)


def main() -> None:
    _become_a_daemon()
    # What a script starts in the background ignores these, and so would a server that has just begun: the
    # one that tells it to stop would be lost.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    keeper = Keeper(Cluster.from_json(sys.argv[1]))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.chdir("/")
    keeper.run()


if __name__ == "__main__":
    main()
