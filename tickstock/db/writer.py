"""Bars into `ohlcv_1min`, judged and counted: those of the feed, and stretches of files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import LiteralString, NamedTuple, Self

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow

from tickstock.bars import Bar, Block, Refusal
from tickstock.db.copying import (
    REPORTED_WITHIN,
    ImpossibleError,
    bar_line,
    csv_pieces,
    text_pieces,
    tick_line,
    tick_row,
)
from tickstock.ticks import Trade

OF_BAR = "(symbol, ts, open, high, low, close, volume, vwap, trades)"
OF_BLOCK = "(symbol, ts, open, high, low, close, volume, trades)"
COPY = f"copy pg_temp.incoming_bars {OF_BAR} from stdin"
COPY_NEW = f"copy public.ohlcv_1min {OF_BAR} from stdin (format csv, null 'null')"
COPY_BLOCKS = f"copy pg_temp.incoming_bars {OF_BLOCK} from stdin"
COPY_NEW_BLOCKS = f"copy public.ohlcv_1min {OF_BLOCK} from stdin"
COPY_TICKS = "copy pg_temp.incoming_ticks from stdin"
COPY_NEW_TICKS = (
    "copy public.ticks (symbol, ts, sequence, price, size, conditions, exchange, trade_id, tape, trf,"
    " trf_ts) from stdin (format csv, null 'null')"
)

MERGE = (
    "select received, inserted, replaced, unchanged, refused, refused_rows"
    " from tickstock.merge_incoming(%s)"
)

# Of all that is judged, the time alone: constraints of the table judge the rest.
JUDGE_TIME = "select public.bar_defect('A', %s, 1, 1, 1, 1, 1, null, null)"
JUDGE_TICKS = "select %s <= 1000 * extract(epoch from now() + interval '1 day')"


class Counts(NamedTuple):
    """What became of bars: received = inserted + replaced + unchanged + refused."""

    received: int = 0
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    refused: int = 0

    def plus(self, other: "Counts") -> Self:
        return self._replace(**{k: v + getattr(other, k) for k, v in self._asdict().items()})


class Written(NamedTuple):
    counts: Counts
    refused_rows: frozenset[int]
    """Positions, from 0, of the bars that were refused as impossible."""


def write_bars(
    conn: Connection[TupleRow],
    bars: Iterable[Bar],
    *,
    source: str,
    refusals: Sequence[Refusal] = (),
    queue_for_scan: bool = True,
) -> Written:
    """Write bars in one transaction and say what became of them.

    Bars already there are replaced where they differ; impossible ones go to `refused_bars`, as do the
    refusals given (which count as received and refused). `queue_for_scan=False` keeps bulk loads of
    history away from the pattern scanners.
    """
    with _transaction(conn, queue_for_scan=queue_for_scan) as cursor:
        cursor.execute("call tickstock.prepare_incoming()")
        with cursor.copy(COPY) as copy:
            for piece in text_pieces(map(bar_line, bars)):
                copy.write(piece)
        return _merge(cursor, source, refusals)


def write_new_bars(
    conn: Connection[TupleRow],
    bars: Sequence[Bar],
    *,
    source: str,
    refusals: Sequence[Refusal] = (),
) -> Written:
    """As `write_bars` does, but in half the time if all bars are new and possible: then they are
    copied straight into the table. If not, the attempt has cost some time. Symbols, times and numbers
    are there and finite, as the feed's parser has it.
    """
    try:
        with _transaction(conn, queue_for_scan=True) as cursor:
            return Written(_copy_bars(cursor, bars, refusals), frozenset())
    except _NOT_NEW:
        return write_bars(conn, bars, source=source, refusals=refusals)


def write_blocks(conn: Connection[TupleRow], blocks: Iterator[Block], *, source: str) -> Counts:
    """Write stretches of a file in one transaction and say what became of their bars.

    As `write_new_bars` does, but the bars are not queued for the pattern scanners.
    """
    sent: list[Block] = []
    try:
        with _transaction(conn, queue_for_scan=False) as cursor:
            return _copy_blocks(cursor, blocks, sent)
    except _NOT_NEW:
        return _merge_blocks(conn, chain(sent, blocks), source)


def write_ticks(conn: Connection[TupleRow], trades: Iterable[Trade], *, source: str) -> int:
    """Write trades in one transaction; how many were new. Those already there stay as they are."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute("call tickstock.prepare_ticks()")
        with cursor.copy(COPY_TICKS) as copy:
            for piece in text_pieces(map(tick_line, trades)):
                copy.write(piece)
        row = cursor.execute("select tickstock.merge_ticks(%s)", (source,)).fetchone()
        assert row is not None
        return int(row[0])


def write_new_ticks(conn: Connection[TupleRow], trades: Sequence[Trade], *, source: str) -> int:
    """As `write_ticks` does, in half the time if all trades are new: see `write_new_bars`."""
    try:
        with conn.transaction(), conn.cursor() as cursor:
            return _copy_ticks(cursor, trades)
    except _NOT_NEW:
        return write_ticks(conn, trades, source=source)


_NOT_NEW = (
    psycopg.IntegrityError,
    psycopg.DataError,
    # Merging takes its locks in the order of the key, COPY in that of its input.
    psycopg.errors.DeadlockDetected,
    ImpossibleError,
)
"""Why bars can't be copied straight into the table, and are to be merged."""


def _copy_bars(
    cursor: Cursor[TupleRow], bars: Sequence[Bar], refusals: Sequence[Refusal]
) -> Counts:
    """All or nothing."""
    # The index has a symbol's minutes side by side: the nearer to its order, the faster.
    ordered = sorted(bars, key=attrgetter("symbol"))
    inserted = _copy_new(cursor, COPY_NEW, csv_pieces(ordered))
    if bars:
        _judge_time(cursor, max(bar.ts for bar in bars))
    refused = _refuse(cursor, refusals)
    return Counts(received=inserted + refused, inserted=inserted, refused=refused)


def _copy_ticks(cursor: Cursor[TupleRow], trades: Sequence[Trade]) -> int:
    """All or nothing."""
    ordered = sorted(trades, key=attrgetter("symbol"))
    copied = _copy_new(cursor, COPY_NEW_TICKS, csv_pieces(map(tick_row, ordered)))
    latest = max(trade.at for trade in trades) + REPORTED_WITHIN
    if cursor.execute(JUDGE_TICKS, (latest,)).fetchone() != (True,):
        raise ImpossibleError
    return copied


def _copy_blocks(cursor: Cursor[TupleRow], blocks: Iterator[Block], sent: list[Block]) -> Counts:
    """All or nothing. What was taken from `blocks` is in `sent` afterwards, also after a failure."""

    def texts() -> Iterator[str]:
        for block in blocks:
            sent.append(block)
            yield block.copy_text

    inserted = _copy_new(cursor, COPY_NEW_BLOCKS, texts())
    if latest := max((block.latest for block in sent), default=""):
        _judge_time(cursor, latest)
    refused = _refuse(cursor, [r for block in sent for r in block.refusals])
    return Counts(received=inserted + refused, inserted=inserted, refused=refused)


def _copy_new(
    cursor: Cursor[TupleRow], statement: LiteralString, pieces: Iterable[str | bytes]
) -> int:
    """How many bars that were."""
    # The trigger sees all rows of the statement: keep them in memory.
    cursor.execute("set local work_mem = '64MB'")
    with cursor.copy(statement) as copy:
        for piece in pieces:
            copy.write(piece)
    return cursor.rowcount


def _judge_time(cursor: Cursor[TupleRow], latest: datetime | str) -> None:
    """Raises ImpossibleError for a time that no bar can have."""
    if cursor.execute(JUDGE_TIME, (latest,)).fetchone() != (None,):
        raise ImpossibleError


def _merge_blocks(conn: Connection[TupleRow], blocks: Iterable[Block], source: str) -> Counts:
    refusals: list[Refusal] = []
    with _transaction(conn, queue_for_scan=False) as cursor:
        cursor.execute("call tickstock.prepare_incoming()")
        with cursor.copy(COPY_BLOCKS) as copy:
            for block in blocks:
                copy.write(block.copy_text)
                refusals += block.refusals
        return _merge(cursor, source, refusals).counts


@contextmanager
def _transaction(conn: Connection[TupleRow], *, queue_for_scan: bool) -> Iterator[Cursor[TupleRow]]:
    with conn.transaction(), conn.cursor() as cursor:
        if not queue_for_scan:
            cursor.execute("set local tickstock.scan_queue = off")
        yield cursor


def _merge(cursor: Cursor[TupleRow], source: str, refusals: Sequence[Refusal]) -> Written:
    """What waits in incoming_bars becomes bars."""
    refused = _refuse(cursor, refusals)
    merged = cursor.execute(MERGE, (source,)).fetchone()
    assert merged is not None
    counts = Counts(*merged[:5]).plus(Counts(received=refused, refused=refused))
    return Written(counts, frozenset(merged[5] or ()))


def _refuse(cursor: Cursor[TupleRow], refusals: Sequence[Refusal]) -> int:
    if refusals:
        cursor.executemany(
            "insert into public.refused_bars (source, reason, payload) values (%s, %s, %s)",
            [(r.source, r.reason, _storable(r.payload)) for r in refusals],
        )
    return len(refusals)


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL byte and no lone surrogate; garbage may."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
