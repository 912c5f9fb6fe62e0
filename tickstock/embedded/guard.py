"""A small parent for a throw-away server: `guard.py FOLDER PROGRAM ARGUMENT…`.

It ends the server and removes the folder as soon as its standard input closes, which the kernel
does when whoever started it dies, however that happens. Run as a file with `-I`; imports nothing
of tickstock, so that it starts at once.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_CHECK_SECONDS = 0.2
_END_SECONDS = 5.0


def _die_with_us() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc, guard = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)

    return prepare


def main(folder: str, *command: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_us())
    try:
        while server.poll() is None and not select.select([0], [], [], _CHECK_SECONDS)[0]:
            pass
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_END_SECONDS)
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
