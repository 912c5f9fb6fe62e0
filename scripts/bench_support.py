"""What the measurements share: servers, databases, clocks, and the table they end in."""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString, NamedTuple

import click
import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow
from rich.console import Console
from rich.table import Table

from tickstock.db.connection import connect
from tickstock.db.migrate import migrate
from tickstock.embedded.installations import Installation, find_installations
from tickstock.embedded.server import EmbeddedServer, dsn_for
from tickstock.timeframes import TIMEFRAMES

Conn = Connection[TupleRow]
LARGER = TIMEFRAMES[1:]


WIDTH = 240
"""Columns of the output into a file or pipe: a line for each figure."""


ENGINES = ("postgres", "apache", "community")
engine_option = click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(ENGINES),
    help="Only this engine; may be repeated.",
)


def make_console() -> Console:
    """As wide as the terminal, or WIDTH."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


class Row(NamedTuple):
    what: str
    figure: str
    must: str = ""
    """What the figure must reach; followed by "missed" where it does not."""
    ratio: str = ""


def show(console: Console, title: str, rows: Sequence[Row]) -> None:
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("what", overflow="fold")
    table.add_column("figure", justify="right", no_wrap=True)
    table.add_column("must reach", justify="right", no_wrap=True)
    table.add_column("ratio to the reference", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def must(limit: str, reached: bool) -> str:
    return limit if reached else f"{limit} missed"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


class Latencies(NamedTuple):
    """Of many runs of one thing, in seconds."""

    times: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        if len(self.times) == 1:
            return self.times[0]
        return statistics.quantiles(self.times, n=100, method="inclusive")[98]

    @property
    def worst(self) -> float:
        return max(self.times)

    def __str__(self) -> str:
        if not self.times:
            return "none"
        return f"p50 {duration(self.median)}, p99 {duration(self.p99)}, max {duration(self.worst)}"


class Beside(threading.Thread):
    """Does something again and again in a session of its own, and keeps how long each took."""

    def __init__(self, url: str, work: Callable[[Conn], object], *, pause: float = 0.01) -> None:
        super().__init__(daemon=True)
        self.latencies = Latencies([])
        self._url, self._work, self._pause = url, work, pause
        self._over = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            with connect(self._url, program="bench beside") as conn:
                while not self._over.wait(self._pause):
                    self.latencies.times.append(seconds(lambda: self._work(conn)))
        except Exception as error:
            self._error = error  # raised where the block ends

    def __enter__(self) -> "Beside":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        if self._error:
            raise self._error


def installations(engines: Sequence[str]) -> Iterator[Installation]:
    """The best of each engine that is there, of those asked for."""
    seen: set[str] = set()
    for installation in find_installations():
        if installation.engine not in seen and installation.engine in (engines or ENGINES):
            seen.add(installation.engine)
            yield installation


@contextmanager
def running(installation: Installation) -> Iterator[str]:
    """A durable server of our own, removed afterwards; yields its connection string."""
    server = EmbeddedServer(installation, "bench")
    server.destroy()  # what a killed run has left
    try:
        with server.attached() as dsn:
            yield dsn
    finally:
        server.destroy()


@contextmanager
def database(dsn: str, name: LiteralString) -> Iterator[str]:
    """An empty, migrated database on this server, dropped afterwards."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = dsn_for(dsn, name)
        migrate(url)
        _stop_jobs(url)
        yield url
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _stop_jobs(url: str) -> None:
    """The bench refreshes; what a scheduler does when it likes is not for it."""
    with psycopg.connect(url, autocommit=True) as conn:
        if conn.execute("select tickstock_engine() = 'community'").fetchone() == (True,):
            conn.execute(
                "select alter_job(job_id, scheduled => false)"
                " from timescaledb_information.jobs where proc_schema = 'tickstock'"
            )


class Program:
    """A tickstock command as an operator runs it, with settings of the bench alone."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self._log = (folder / f"{arguments[0]}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tickstock", *arguments],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("TICKSTOCK_")},
                "TICKSTOCK_DATA_DIR": str(folder),
                **settings,
            },
            stderr=self._log,
        )

    def memory(self) -> float:
        """Its peak, in MB (of 1,000,000 bytes)."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) * 1_024 / 1e6

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


def relation(timeframe: str) -> sql.Identifier:
    return sql.Identifier(f"ohlcv_{timeframe}")
