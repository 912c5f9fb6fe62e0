"""`tickstock load`: the vendor's flat files into `ohlcv_1min`, with a progress bar."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar, Refusal
from tickstock.db.writer import Counts, write_bars
from tickstock.errors import TickstockError
from tickstock.feed.flatfiles import Consumed, read_bars

BATCH = 100_000
"""Bars a transaction: large enough to be fast, small enough to be held in memory."""


def load_file(conn: Connection[TupleRow], path: str) -> Counts:
    """Load one file; `-` is standard input. Bars that are there already stay as they are.

    Raises TickstockError for a file that is missing, broken, or not the vendor's minute file; what
    came before a break has been loaded then, and loading the mended file again completes it.
    """
    counts = Counts()
    try:
        with _progress(path) as advance:
            for rows in _batches(read_bars(path, consumed=advance)):
                written = write_bars(
                    conn,
                    (row for row in rows if isinstance(row, Bar)),
                    source="stdin" if path == "-" else Path(path).name,
                    refusals=[row for row in rows if isinstance(row, Refusal)],
                    queue_for_scan=False,
                )
                counts = counts.plus(written.counts)
    except TickstockError as error:
        if not counts.received:
            raise
        raise TickstockError(f"{error.message} ({counts.received:,} bars before are in)") from error
    return counts


@contextmanager
def _progress(path: str) -> Iterator[Consumed | None]:
    """A progress bar over the file's bytes, on standard error; none for standard input."""
    file = Path(path)
    if path == "-" or not file.is_file():
        yield None
        return
    with click.progressbar(length=file.stat().st_size, label=file.name, file=sys.stderr) as bar:
        yield bar.update


def _batches(rows: Iterable[Bar | Refusal]) -> Iterator[list[Bar | Refusal]]:
    batch: list[Bar | Refusal] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                yield batch
                batch = []
    except TickstockError:
        if batch:
            yield batch  # what came before the break
        raise
    if batch:
        yield batch
