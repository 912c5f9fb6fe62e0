"""Bars into `ohlcv_1min`, judged and counted: those of the feed, and stretches of files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain, islice
from operator import attrgetter
from typing import LiteralString, NamedTuple, Self

import orjson
import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow

from tickstock.bars import Bar, Block, Refusal
from tickstock.ticks import Trade

OF_BAR = "(symbol, ts, open, high, low, close, volume, vwap, trades)"
OF_BLOCK = "(symbol, ts, open, high, low, close, volume, trades)"
COPY = f"copy pg_temp.incoming_bars {OF_BAR} from stdin"
COPY_NEW = f"copy public.ohlcv_1min {OF_BAR} from stdin (format csv, null 'null')"
COPY_BLOCKS = f"copy pg_temp.incoming_bars {OF_BLOCK} from stdin"
COPY_NEW_BLOCKS = f"copy public.ohlcv_1min {OF_BLOCK} from stdin"
COPY_TICKS = "copy pg_temp.incoming_ticks from stdin"
COPY_NEW_TICKS = "copy public.ticks from stdin (format csv, null 'null')"

REPORTED_WITHIN = 3_600_000
"""Milliseconds: a trade whose report is later than that is judged by merging."""

NULL = r"\N"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of UTC, whose name is added

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
            for piece in _pieces(map(_bar_line, bars)):
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
    copied straight into the table. If not, the attempt has cost some time. Numbers are finite.
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
            for piece in _pieces(map(_tick_line, trades)):
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


def _bar_line(bar: Bar) -> str:
    """As COPY reads it: several times faster than by psycopg's adapters."""
    symbol, ts, opened, high, low, close, volume, vwap, trades = bar
    return (
        f"{NULL if symbol is None else _escaped(symbol)}\t{NULL if ts is None else _stamp(ts)}"
        f"\t{NULL if opened is None else opened}\t{NULL if high is None else high}"
        f"\t{NULL if low is None else low}\t{NULL if close is None else close}"
        f"\t{NULL if volume is None else volume}\t{NULL if vwap is None else vwap}"
        f"\t{NULL if trades is None else trades}\n"
    )


_stamp = lru_cache(maxsize=256)(str)


def _tick_line(trade: Trade) -> str:
    symbol, at, sequence, price, size, conditions, _ = trade
    exchange, name, tape, trf, trf_at = trade.venue
    codes = ",".join(map(str, conditions))
    values = (exchange, None if name is None else _escaped(name), tape, trf, trf_at)
    rest = "\t".join(NULL if value is None else str(value) for value in values)
    return f"{_escaped(symbol)}\t{at}\t{sequence}\t{price}\t{size}\t{{{codes}}}\t{rest}\n"


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    while piece := "".join(islice(lines, 1_000)):
        yield piece


def _escaped(text: str) -> str:
    return text if text.isalnum() else text.translate(_ESCAPES)


_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class _ImpossibleError(Exception):
    """Merging would refuse a bar that the table's constraints let through, or knows how to write it."""


_NOT_NEW = (
    psycopg.IntegrityError,
    psycopg.DataError,
    # Merging takes its locks in the order of the key, COPY in that of its input.
    psycopg.errors.DeadlockDetected,
    _ImpossibleError,
)
"""Why bars can't be copied straight into the table, and are to be merged."""


def _copy_bars(
    cursor: Cursor[TupleRow], bars: Sequence[Bar], refusals: Sequence[Refusal]
) -> Counts:
    """All or nothing."""
    # The index has a symbol's minutes side by side: the nearer to its order, the faster.
    ordered = sorted(bars, key=attrgetter("symbol"))
    if ordered and not ordered[0].symbol:
        raise _ImpossibleError
    inserted = _copy_new(cursor, COPY_NEW, _csv_pieces(ordered))
    if bars:
        _judge_time(cursor, max(bar.ts for bar in bars))
    refused = _refuse(cursor, refusals)
    return Counts(received=inserted + refused, inserted=inserted, refused=refused)


def _copy_ticks(cursor: Cursor[TupleRow], trades: Sequence[Trade]) -> int:
    """All or nothing."""
    ordered = sorted(trades, key=attrgetter("symbol"))
    copied = _copy_new(cursor, COPY_NEW_TICKS, _csv_pieces(map(_tick_row, ordered)))
    latest = max(trade.at for trade in trades) + REPORTED_WITHIN
    if cursor.execute(JUDGE_TICKS, (latest,)).fetchone() != (True,):
        raise _ImpossibleError
    return copied


def _tick_row(trade: Trade) -> tuple[object, ...]:
    symbol, at, sequence, price, size, conditions, _ = trade
    exchange, name, tape, trf, trf_at = trade.venue
    if trf_at is not None and trf_at > at + REPORTED_WITHIN:
        raise _ImpossibleError
    reported = None if trf_at is None else _milliseconds(trf_at)
    codes = _array(conditions)
    return (
        symbol,
        _milliseconds(at),
        sequence,
        price,
        size,
        codes,
        exchange,
        name,
        tape,
        trf,
        reported,
    )


def _milliseconds(at: int) -> str:
    """As PostgreSQL reads a time; `at` is in milliseconds after the epoch."""
    return f"{_second(at // 1_000)}.{at % 1_000:03}+00"


@lru_cache(maxsize=4096)
def _second(at: int) -> str:
    return str(_EPOCH + timedelta(seconds=at))


@lru_cache(maxsize=4096)
def _array(codes: tuple[int, ...]) -> str:
    return f"{{{','.join(map(str, codes))}}}"


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


def _csv_pieces(tuples: Iterable[tuple[object, ...]]) -> Iterator[bytes]:
    """As COPY reads CSV. JSON's way to write a row is nearly the same, and several times faster."""
    each = map(tuple, tuples)  # a named one is none to JSON
    while rows := list(islice(each, 1_000)):
        try:
            text = orjson.dumps(rows, default=str)
        except TypeError:  # a number of more than 64 bits
            raise _ImpossibleError from None
        if b"\\" in text or text.count(b"],[") >= len(rows):  # a text that is spelled differently
            raise _ImpossibleError
        yield text[2:-2].replace(b"],[", b"\n") + b"\n"


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
    """Raises _ImpossibleError for a time that no bar can have."""
    if cursor.execute(JUDGE_TIME, (latest,)).fetchone() != (None,):
        raise _ImpossibleError


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
