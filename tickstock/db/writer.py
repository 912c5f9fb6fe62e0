"""Bars into `ohlcv_1min`: COPY into a temporary table, then one merge that judges and counts."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar, Refusal

COPY = (
    "copy pg_temp.incoming_bars"
    " (symbol, ts, open, high, low, close, volume, vwap, trades) from stdin"
)

MERGE = (
    "select received, inserted, replaced, unchanged, refused, refused_rows"
    " from tickstock.merge_incoming(%s)"
)


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
    with conn.transaction(), conn.cursor() as cursor:
        if not queue_for_scan:
            cursor.execute("set local tickstock.scan_queue = off")
        cursor.execute("call tickstock.prepare_incoming()")
        with cursor.copy(COPY) as copy:
            for bar in bars:
                copy.write_row(bar)
        if refusals:
            cursor.executemany(
                "insert into public.refused_bars (source, reason, payload) values (%s, %s, %s)",
                [(r.source, r.reason, _storable(r.payload)) for r in refusals],
            )
        merged = cursor.execute(MERGE, (source,)).fetchone()
    assert merged is not None
    counts = Counts(*merged[:5]).plus(Counts(received=len(refusals), refused=len(refusals)))
    return Written(counts, frozenset(merged[5] or ()))


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL byte and no lone surrogate; garbage may."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
