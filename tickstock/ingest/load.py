"""`tickstock load`: the vendor's flat files into `ohlcv_1min`, with a progress bar."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Block
from tickstock.counted import counted
from tickstock.db.connection import connect, fetch_value, first_line, without_time_limits
from tickstock.db.upkeep import refresh as refresh_candles
from tickstock.db.writer import Counts, write_blocks
from tickstock.errors import TickstockError
from tickstock.feed.flatfiles import Consumed, read_blocks
from tickstock.progress import progress_bar

log = logging.getLogger(__name__)

NEW_YORK = ZoneInfo("America/New_York")
BLOCKS = 6
"""Blocks a transaction, some 100,000 bars: enough to be fast, and held in memory until it ends."""


def load_files(
    conn: Connection[TupleRow],
    url: str,
    paths: Iterable[str],
    *,
    before_block: Callable[[Block], object] = lambda _: None,
) -> Iterator[tuple[str, Counts]]:
    """Load files one after the other, tell what became of each, materialize all their candles.

    `url` is for a second session to the same database. Raises as `load_file` does, after materializing
    those of what came before.
    """
    without_time_limits(conn)
    # A continuous aggregate refreshes a range of time for all symbols: better when a file is whole.
    by_file = fetch_value(conn, "select tickstock_engine()") == "community"
    stored = False
    broken: TickstockError | None = None
    with RefreshBehind(url) as refresh:

        def after_batch() -> None:
            nonlocal stored
            stored = True
            if not by_file:
                refresh.tell()

        for path in paths:
            try:
                counts = load_file(conn, path, before_block=before_block, after_batch=after_batch)
            except TickstockError as error:
                broken = error
                break
            refresh.tell()
            yield path, counts
    if stored or not broken:
        refresh_candles(conn, url)
        conn.execute("analyze public.ohlcv_1min")
    if broken:
        raise broken


def load_file(
    conn: Connection[TupleRow],
    path: str,
    *,
    before_block: Callable[[Block], object] = lambda _: None,
    after_batch: Callable[[], object] | None = None,
) -> Counts:
    """Load one file; `-` is standard input. Bars that are there already stay as they are.

    Calls `before_block` with each stretch of the file, which is left out if that raises TickstockError,
    as is the rest; `after_batch` after each transaction. Raises TickstockError for a file that is missing,
    broken, or not the vendor's minute file; what came before a break has been loaded then, and
    loading the mended file again completes it.
    """
    source = _source(path)
    counts = Counts()
    breaks: list[TickstockError] = []
    with _progress(path) as advance:
        blocks = _until_break(read_blocks(path, consumed=advance), before_block, breaks)
        while (written := write_blocks(conn, islice(blocks, BLOCKS), source=source)).received:
            counts = counts.plus(written)
            if after_batch:
                after_batch()
    for error in breaks:
        if not counts.received:
            raise error
        stored = counted(counts.received, "bar")
        raise TickstockError(f"{error.message} (stored before that: {stored})") from error
    return counts


def load_whole_day(
    conn: Connection[TupleRow], url: str, path: str, stop: threading.Event
) -> tuple[date, Counts]:
    """Load the vendor's file of a day, and note in the feed's ledger that it told all of that day.

    The day is New York's. Raises as `load_file` does, for a file without bars, and if `stop` is set
    before its end; nothing is noted then.
    """
    latest = ""

    def look(block: Block) -> None:
        nonlocal latest
        if stop.is_set():
            raise TickstockError(
                f"stopped before the end of {path}: the same command loads the rest"
            )
        latest = latest or block.latest

    # Read once: it may be a pipe.
    ((_, counts),) = load_files(conn, url, [path], before_block=look)
    if not latest:
        raise TickstockError(f"{path} holds no bar: it tells nothing of any day")
    day = datetime.fromisoformat(latest).astimezone(NEW_YORK).date()
    starts, ends = (datetime.combine(d, time(), NEW_YORK) for d in (day, day + timedelta(days=1)))
    conn.execute(
        "select tickstock.settle('*', %s, %s, 'infinity', %s, %s)",
        (starts, ends, _source(path), counts.received),
    )
    conn.execute("select tickstock.forget_told_by_all()")
    return day, counts


def _source(path: str) -> str:
    return "stdin" if path == "-" else Path(path).name


def _until_break(
    blocks: Iterator[Block],
    before_block: Callable[[Block], object],
    breaks: list[TickstockError],
) -> Iterator[Block]:
    """The blocks before a break: they are to be stored before anybody hears of it."""
    try:
        for block in blocks:
            before_block(block)
            yield block
    except TickstockError as error:
        breaks.append(error)


@contextmanager
def _progress(path: str) -> Iterator[Consumed | None]:
    """A progress bar over the file's bytes, on standard error; none for standard input."""
    file = Path(path)
    if path == "-" or not os.path.isfile(path):  # noqa: PTH113 - False for what can be no name, too
        yield None
        return
    with progress_bar(file.stat().st_size, file.name) as bar:
        yield bar.update


class RefreshBehind(threading.Thread):
    """Materializes candles in a session of its own, while another one loads, whenever it is told to.

    It only makes the refresh after the load shorter: what it leaves undone is done there.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="refresh", daemon=True)
        self._conn = connect(url, program="refresh")
        without_time_limits(self._conn)
        self._told = threading.Event()
        self._over = False

    def tell(self) -> None:
        """There is something to refresh. While it is at it, being told many times is like once."""
        self._told.set()

    def run(self) -> None:
        try:
            while self._told.wait() and not self._over:
                self._told.clear()
                self._conn.execute("call public.ohlcv_refresh(wait => false)")
        except psycopg.Error as error:
            log.info("no more refresh while loading: %s", first_line(error))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._over = True
        self._told.set()
        if error:
            self._conn.cancel_safe()
        self.join()
        self._conn.close()
