"""Locks that the kernel releases when their holder dies, however it dies (flock)."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType


class FileLock:
    """An flock on a file of its own; `with FileLock(path) as lock:` opens it, unlocked."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release and close; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def share(self) -> None:
        """Wait for a shared lock."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def exclude(self) -> None:
        """Wait for the exclusive lock."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def try_share(self) -> bool:
        return self._try(fcntl.LOCK_SH)

    def try_exclude(self, seconds: float = 0.0) -> bool:
        """Try for the exclusive lock, again and again for this long."""
        deadline = time.monotonic() + seconds
        while not self._try(fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_held(path: Path) -> bool:
    """Whether some process holds the exclusive lock on this file at this moment."""
    with FileLock(path) as lock:
        return not lock.try_share()
