"""What scanning reads: the candles to be judged, and as many before them as the patterns look at."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import numpy as np
from psycopg import Connection, Cursor, pq, sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import TupleRow

from tickstock.patterns import Bools, Candles, Floats
from tickstock.timeframes import TIMEFRAMES

WINDOWS = {
    timeframe: sql.SQL("select * from tickstock.{}(%s, %s, %s, %s, %s)").format(
        sql.Identifier(f"windows_{timeframe}")
    )
    for timeframe in TIMEFRAMES
}
# A bar is complete.
COMPLETE = """
select timeframe, case when timeframe = '1min' or candle_complete_at(timeframe, starts) <= latest
                  then starts else starts - interval '1 microsecond' end
from timeframes, latest_minute() latest, candle_start(timeframe, latest) starts where latest is not null
"""
# Days from the one before, in New York, of the first time to that of the last.
SESSIONS = """
select extract(epoch from day::timestamp at time zone 'America/New_York')::float8,
  extract(epoch from (day + 1)::timestamp at time zone 'America/New_York')::float8,
  extract(epoch from opens_at)::float8, extract(epoch from closes_at)::float8
from trading_days where day between to_timestamp(%s)::date - 1 and to_timestamp(%s)::date + 1 order by day
"""


class Span(NamedTuple):
    """Complete candles of one symbol, from the one that begins at `since` to that of `until`, UTC."""

    symbol: str
    since: datetime
    until: datetime


class Series(NamedTuple):
    """Candles of one symbol, oldest first, of which some are judged."""

    span: Span
    """What is judged: what was asked about, and the candles after it that look back at it. A candle
    in it may be gone."""
    columns: Floats
    """(6, candles): ts (seconds since 1970, UTC), open, high, low, close, volume."""
    first: int
    """The first one judged; all from there on are."""
    prices: list[str]
    """Closes of those judged, with all their digits."""
    beyond: bool = False
    """Whether candles after those asked about are judged as well."""

    @property
    def ts(self) -> Floats:
        ts: Floats = self.columns[0]
        return ts

    @property
    def judged(self) -> int:
        return int(self.columns.shape[1]) - self.first

    @property
    def symbol(self) -> str:
        return self.span.symbol


class Reader(Protocol):
    """Reads the candles of spans, as read_series() does."""

    def __call__(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
    ) -> Iterable[Series]: ...


@lru_cache(maxsize=10_000)  # thousands of events share a few times
def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def complete_up_to(conn: Connection[TupleRow]) -> dict[str, datetime]:
    """By timeframe: candles that begin up to then are complete, by the feed's clock. Empty without bars."""
    return dict(conn.execute(COMPLETE).fetchall())


def read_series(
    conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
) -> Iterator[Series]:
    """The candles of each span, and of the `reach` candles after it, for these look back at it.

    With as many before, as far as there are any.
    """
    if not spans:
        return
    symbols, since, until = (list(column) for column in zip(*spans, strict=True))
    with float_arrays(conn) as cursor:
        for nth, *columns, prices in cursor.execute(
            WINDOWS[timeframe], (symbols, since, until, reach, reach)
        ):
            there = NOTHING if columns[0] is None else np.stack(columns)
            yield _cut(spans[nth - 1], there, prices or "", reach)


@contextmanager
def float_arrays(conn: Connection[TupleRow]) -> Iterator[Cursor[TupleRow]]:
    """A cursor that makes a one-dimensional float8[] without nulls an array of numpy."""
    with conn.cursor(binary=True) as cursor:
        cursor.adapters.register_loader(conn.adapters.types["float8"].array_oid, _FloatsLoader)
        yield cursor


NOTHING: Floats = np.empty((6, 0))


def _cut(span: Span, columns: Floats, prices: str, reach: int) -> Series:
    """What is needed of what was read, which may be more."""
    ts = columns[0]
    first = int(np.searchsorted(ts, span.since.timestamp()))
    after = int(np.searchsorted(ts, span.until.timestamp(), side="right"))
    begin, end = max(0, first - reach), min(len(ts), after + reach)
    last = max(span.until, at(ts[end - 1])) if end else span.until
    return Series(
        span._replace(until=last),
        columns[:, begin:end],
        first - begin,
        prices.split(" ")[: end - first] if end > first else [],
        beyond=last > span.until,
    )


class Sessions(NamedTuple):
    """Regular sessions of some days. Arrays are (days,), seconds since 1970, UTC."""

    begins: Floats
    """Midnight in New York at which the day begins."""
    ends: Floats
    opens_at: Floats
    closes_at: Floats

    @classmethod
    def read(cls, conn: Connection[TupleRow], series: Iterable[Series]) -> Self:
        """Those of the judged candles' days."""
        edges = [(each.ts[each.first], each.ts[-1]) for each in series if each.judged]
        if not edges:
            return cls(*np.empty((4, 0)))
        first, last = min(edge[0] for edge in edges), max(edge[1] for edge in edges)
        rows = conn.execute(SESSIONS, (float(first), float(last))).fetchall()
        return cls(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)

    def of(self, ts: Floats) -> tuple[Floats, Floats]:
        """Opening and close of the days on which these candles begin; NaN on days without a session."""
        if not len(self.begins):
            nothing = np.full(ts.shape, np.nan)
            return nothing, nothing
        day = np.searchsorted(self.begins, ts, side="right") - 1
        there = (day >= 0) & (ts < self.ends[day])
        return np.where(there, self.opens_at[day], np.nan), np.where(
            there, self.closes_at[day], np.nan
        )


def side_by_side(timeframe: str, several: Sequence[Series], sessions: Sessions) -> Candles:
    """As windows, (length, windows), that end with their last candles."""
    length = max(len(each.ts) for each in several)
    columns = np.full((6, length, len(several)), np.nan)
    for number, each in enumerate(several):
        columns[:, length - len(each.ts) :, number] = each.columns
    return _candles(timeframe, columns, sessions.of(columns[0, -1]))


def end_to_end(
    timeframe: str, several: Sequence[Series], sessions: Sessions
) -> tuple[Candles, list[int], Bools]:
    """As series, (candles,), one after the other; where each begins; and which candles are judged."""
    columns = np.concatenate([each.columns for each in several], axis=1)
    sizes = np.array([len(each.ts) for each in several])
    begins = np.cumsum(sizes) - sizes
    number = np.arange(sizes.sum())
    judged = number - np.repeat(begins, sizes) >= np.repeat([s.first for s in several], sizes)
    return _candles(timeframe, columns, sessions.of(columns[0])), begins.tolist(), judged


def _candles(timeframe: str, columns: Iterable[Floats], session: tuple[Floats, Floats]) -> Candles:
    ts, opened, high, low, close, volume = columns
    return Candles(timeframe, ts, opened, high, low, close, volume, *session)


class _FloatsLoader(Loader):
    """A one-dimensional float8[] without nulls as an array of numpy."""

    format = pq.Format.BINARY

    HEADER = 20
    ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])

    def load(self, data: Buffer) -> Floats:
        elements = np.frombuffer(data, dtype=self.ELEMENT, offset=self.HEADER)
        floats: Floats = elements["value"].astype(np.float64)
        return floats
