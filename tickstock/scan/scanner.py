"""The scanner: takes completed candles, asks the patterns, makes the events what they found.

What is taken, what follows and what is found is one transaction, so that several scanners can share
the work, and a killed one loses and repeats nothing. They must have the same patterns: a candle is
scanned by one of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from tickstock.patterns import Pattern
from tickstock.patterns.evaluate import Failures
from tickstock.scan.catalog import Catalog
from tickstock.scan.judge import PATTERN_TIMEOUT, Judged, TimeLimit, judge
from tickstock.scan.kept import KeptWindows
from tickstock.scan.record import Recorded, record
from tickstock.scan.windows import Reader, Span

# The queue and the marks of change grow and shrink by thousands in seconds: a plan made when they
# were empty must not read them from end to end for every candle.
PLAN_FOR_GROWTH = "select set_config('enable_seqscan', 'off', true)"
TAKE = "select timeframe, symbol, ts from tickstock.take_candles(%s)"
THREADS = 2
"""Each with a connection: while the database records what one has found, the other judges."""
NEAR = timedelta(days=4)
"""Candles of a symbol that are not farther apart are judged with those between them."""


class Candle(NamedTuple):
    """Which candle: `ts` is its start, UTC."""

    timeframe: str
    symbol: str
    ts: datetime


class Scanned(NamedTuple):
    candles: int = 0
    events: int = 0
    """Made or changed: one that is in the table already, as it is, does not count."""
    retracted: int = 0

    def plus(self, other: "Scanned") -> "Scanned":
        return Scanned(*(a + b for a, b in zip(self, other, strict=True)))


class Scanner:
    """Scans candles for patterns."""

    def __init__(
        self,
        patterns: Sequence[Pattern],
        *,
        beside: "Scanner | None" = None,
        pattern_timeout: float = PATTERN_TIMEOUT,
    ) -> None:
        """beside: one in another thread of the program, with which this one shares what it knows.

        pattern_timeout: seconds that a pattern in SQL may take for the candles of a timeframe.
        """
        self._catalog = Catalog(patterns)
        self._failures: Failures = beside._failures if beside else Failures()
        self._limit: TimeLimit = beside._limit if beside else TimeLimit(pattern_timeout)
        self._windows: KeptWindows = KeptWindows(beside._windows if beside else None)

    def scan(self, conn: Connection[TupleRow], *, most: int = 5_000) -> Scanned:
        """Judge about that many candles of those that wait, record events; all or nothing."""
        committed = False
        try:
            with conn.transaction():
                scanned = self._scan(conn, most)
            # A caller's transaction may fail yet.
            committed = conn.info.transaction_status is TransactionStatus.IDLE
            return scanned
        finally:
            self._windows.end(committed=committed)

    def _scan(self, conn: Connection[TupleRow], most: int) -> Scanned:
        conn.execute(PLAN_FOR_GROWTH)
        taken = [Candle(*row) for row in conn.execute(TAKE, (most,))]
        if not taken:
            return Scanned()
        self._windows.begin(conn, (candle.symbol for candle in taken))
        spans = {
            timeframe: list(spans_of(candles))
            for timeframe, candles in groupby(taken, attrgetter("timeframe"))
        }
        recorded = self.judge(conn, spans, self._windows.read)
        return Scanned(len(taken), recorded.made, recorded.retracted)

    def judge(
        self, conn: Connection[TupleRow], spans: Mapping[str, Sequence[Span]], read: Reader
    ) -> Recorded:
        """Judge the complete candles of these spans, by timeframe; within the caller's transaction, last."""
        chosen = self._catalog.read(conn)
        for timeframe in spans:
            if not chosen[timeframe]:
                self._windows.forget(timeframe)
        judged = [
            judge(conn, timeframe, some, chosen[timeframe], self._failures, self._limit, read)
            for timeframe, some in spans.items()
            if chosen[timeframe]
        ]
        return self._record(conn, judged)

    def _record(self, conn: Connection[TupleRow], judged: Sequence[Judged]) -> Recorded:
        return record(conn, judged)


def side_by_side(patterns: Sequence[Pattern], pattern_timeout: float) -> list[Scanner]:
    """Scanners for the threads of one program, which share what they know."""
    first = Scanner(patterns, pattern_timeout=pattern_timeout)
    return [first, *(Scanner(patterns, beside=first) for _ in range(1, THREADS))]


def spans_of(candles: Iterable[Candle]) -> Iterator[Span]:
    """The spans that hold these candles of one timeframe, which come by symbol and start."""
    for symbol, some in groupby(candles, attrgetter("symbol")):
        since = until = None
        for candle in some:
            if since is None or until is None:
                since = candle.ts
            elif candle.ts - until > NEAR:
                yield Span(symbol, since, until)
                since = candle.ts
            until = candle.ts
        if since is not None and until is not None:
            yield Span(symbol, since, until)
