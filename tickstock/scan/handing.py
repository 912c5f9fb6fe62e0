"""Handing events to a program: one at a time, each until it is taken."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
from contextlib import suppress

import orjson

from tickstock.errors import TickstockError
from tickstock.feed.backoff import Backoff
from tickstock.scan.listen import Event

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds between asking a program to end and ending it."""


class Hand:
    """Runs a program for each event, its JSON on standard input. Exit code 0 means: taken.

    `command` is split like a shell's words, but no shell runs it. TickstockError if there is no such
    program.
    """

    def __init__(
        self,
        command: str,
        stop: threading.Event,
        *,
        tries: int,
        patience: float,
        first_wait: float = 1.0,
    ) -> None:
        """tries: after so many the event is given up; patience: seconds that one
        may take; first_wait: seconds, doubled from try to try."""
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise TickstockError(f"--exec {command!r} can't be read: {error}") from None
        if not self._words or shutil.which(self._words[0]) is None:
            raise TickstockError(f"--exec {command!r}: no such program, or it may not be run")
        self._stop = stop
        self._tries = tries
        self._patience = patience
        self._first_wait = first_wait

    def give(self, event: Event, held: int) -> bool:
        """Whether the event has been dealt with: taken, or given up. False if `stop` came before.

        held: a file descriptor that the program keeps open as long as it runs, whatever becomes of us.
        """
        backoff = Backoff(first=self._first_wait, cap=60.0)
        for number in range(1, self._tries + 1):
            problem = self._run(event, held)
            if problem is None:
                return True
            log.warning("event %s, try %d of %d: %s", event["id"], number, self._tries, problem)
            if number < self._tries and self._stop.wait(backoff.next()):
                return False
        log.error(
            "event %s given up after %d tries; it stays in the table events: %s",
            *(event["id"], self._tries, orjson.dumps(event).decode()),
        )
        return True

    def _run(self, event: Event, held: int) -> str | None:
        """Run it to its end; what went wrong, if anything."""
        try:
            running = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                pass_fds=(held,),
                start_new_session=True,  # Ctrl-C is for us: the program ends what it does
            )
        except OSError as error:
            return f"{self._words[0]} does not run: {error.strerror}"
        try:
            running.communicate(orjson.dumps(event) + b"\n", timeout=self._patience)
        except subprocess.TimeoutExpired:
            _end(running)
            return f"{self._words[0]} took longer than {self._patience:g} s, and was ended"
        except BaseException:  # such as a second Ctrl-C, which its session does not get
            _send(running, signal.SIGKILL)
            raise
        if running.returncode < 0:
            return f"{self._words[0]} was killed by signal {-running.returncode}"
        return (
            f"{self._words[0]} ended with code {running.returncode}" if running.returncode else None
        )


def _end(running: subprocess.Popen[bytes]) -> None:
    """The program and what it has started, since it is never to run twice at once."""
    _send(running, signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            running.wait(GRACE)
    finally:
        _send(running, signal.SIGKILL)
    running.wait()


def _send(running: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Gone, or another user's (sudo): that one is waited for.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(running.pid, number)
