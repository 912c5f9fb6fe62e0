"""The command line as an operator runs it: processes of their own, with settings of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, LiteralString

import psycopg

from tickstock.db.connection import connect, fetch_value
from tickstock.db.writer import Counts

DEADLINE = 30.0
"""Seconds after which something that must happen has not happened."""
KEY = "k3y-0f-N0-0ne"
SETTINGS = ("MASSIVE_", "POLYGON_", "PG", "TICKSTOCK_")
KEPT = ("TICKSTOCK_CACHE_DIR", "TICKSTOCK_DATA_DIR", "TICKSTOCK_ENGINE", "TICKSTOCK_SETTINGS")
"""Where servers are found and kept: not a matter of one test."""

NOTHING_WAITS = (
    "select not exists (select from tickstock.scan_queue"
    " where ready_at <= (select max(ts) from ohlcv_1min))"
    " and (select events_to_publish from tickstock.freshness) = 0"
)
"""Whether all complete candles are scanned, and all events published."""
COUNTS = re.compile(
    r"([\d,]+) received = ([\d,]+) new \+ ([\d,]+) replaced"
    r" \+ ([\d,]+) unchanged \+ ([\d,]+) refused"
)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings of tickstock's and no other ones."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or not name.startswith(SETTINGS)
    }
    return inherited | settings


def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a tickstock command to its end; it must not fail with a traceback."""
    return run_with_input(b"", *arguments, **settings)


def run_with_input(
    data: bytes, *arguments: str, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """The same, with this on its standard input."""
    done = subprocess.run(
        command(*arguments),
        input=data,
        env=environment(**settings),
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in errors, errors
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tickstock", *arguments]


def eventually(condition: Callable[[], object], what: str, *, within: float = DEADLINE) -> None:
    """Wait for the condition; fail after so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.01)


def until(url: str, query: LiteralString, wanted: object = True, *params: object) -> None:
    """Wait until the first column of the query is what is wanted."""
    with psycopg.connect(url, autocommit=True) as conn:
        eventually(lambda: fetch_value(conn, query, *params) == wanted, f"{wanted} from {query}")


class Program:
    """A tickstock command that runs. Its lines so far are in `output` and `errors`.

    `inside`: a command that runs the one which is given to it, in surroundings of its own.
    """

    def __init__(self, *arguments: str, inside: Sequence[str] = (), **settings: str) -> None:
        self.name = arguments[0]
        self.process = subprocess.Popen(
            [*inside, *command(*arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**settings),
        )
        self.output: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self.process.stdout, self.output),
                (self.process.stderr, self.errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, and say how it ends."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return code

    def await_error(self, text: str) -> None:
        """Wait for a line with this text on standard error."""
        eventually(
            lambda: self.process.poll() is not None or self._said(text), f"{self.name}: {text}"
        )
        assert self._said(text), "".join(self.errors)

    def _said(self, text: str) -> bool:
        return any(text in line for line in self.errors)

    @property
    def counts(self) -> Counts:
        """What became of the bars, by the last line of an ingest that has ended."""
        found = COUNTS.search(self.errors[-1])
        assert found, self.errors
        return Counts(*(int(number.replace(",", "")) for number in found.groups()))


def stop_all(*programs: Program, number: signal.Signals = signal.SIGTERM) -> list[int]:
    """Send the signal to all of them, and say how they end."""
    for program in programs:
        program.send(number)
    return [program.wait() for program in programs]


@contextmanager
def running(*arguments: str, inside: Sequence[str] = (), **settings: str) -> Iterator[Program]:
    """A command that runs for the block; it must neither fail with a traceback nor tell the key."""
    program = Program(*arguments, inside=inside, **settings)
    try:
        yield program
    finally:
        program.process.kill()
        program.wait()
    said = "".join(program.errors + program.output)
    assert "Traceback" not in said, said
    assert KEY not in said, said


def await_connected(url: str, *programs: str) -> None:
    """Wait until each of these commands has come as far as waiting for work from the database."""
    with connect(url, program="test") as conn:
        for program in programs:
            eventually(
                lambda program=program: fetch_value(  # type: ignore[misc]
                    conn,
                    "select count(*) from pg_stat_activity where application_name = %s"
                    " and datname = current_database() and state = 'idle'",
                    f"tickstock {program}",
                ),
                f"{program} is connected",
            )


def _read(stream: IO[str], lines: list[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line)  # noqa: PERF402 - others look at the lines so far
