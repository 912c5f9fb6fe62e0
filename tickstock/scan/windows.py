"""What scanning reads: the candles to be judged, and as many before them as the patterns look at."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol

import numpy as np
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value
from tickstock.patterns import Floats
from tickstock.scan.arrays import float_arrays
from tickstock.timeframes import TIMEFRAMES

WINDOWS = {
    timeframe: sql.SQL("select * from tickstock.{}(%s, %s, %s, %s, %s)").format(
        sql.Identifier(f"windows_{timeframe}")
    )
    for timeframe in TIMEFRAMES
}
# As tickstock.take_candles() takes them. offset 0: each time is computed once, not for each symbol.
COMPLETE = """
select symbol, timeframe,
  case when complete_at <= up_to then starts else starts - interval '1 microsecond' end
from latest_minute() latest
cross join (select timeframe, starts, candle_complete_at(timeframe, starts) as complete_at
            from timeframes, candle_start(timeframe, latest_minute()) starts offset 0) latest_candles
cross join unnest(%s::text[]) symbol
cross join lateral tickstock.complete_up_to(symbol, latest)
where latest is not null
"""


NEAR_DROPPED = timedelta(days=7)
"""So long after the bars that have been dropped, windows are taken to hold none of them."""
JUDGEABLE_SINCE = """
select case when exists (select from tickstock.candles_5min where symbol = %(symbol)s and ts < %(dropped)s)
       then (select b.ts from ohlcv_1min b where b.symbol = %(symbol)s and b.ts >= %(dropped)s
             order by b.ts offset %(reach)s limit 1)
       else %(dropped)s end
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


class Newest(NamedTuple):
    """Candles of many symbols side by side, of each of which the last one is judged."""

    spans: list[Span]
    columns: Floats
    """(6, length, symbols): as those of a Series; NaN before a symbol's first candle."""
    prices: list[str]
    """Closes of those judged, with all their digits."""


class Windows(NamedTuple):
    """What was read: no candle is judged twice."""

    newest: list[Newest]
    series: list[Series]


class Reader(Protocol):
    """Reads the candles of spans, as read_windows() does."""

    def __call__(
        self, conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
    ) -> Windows: ...


@lru_cache(maxsize=10_000)  # thousands of events share a few times
def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def complete_up_to(
    conn: Connection[TupleRow], symbols: Sequence[str]
) -> dict[str, dict[str, datetime]]:
    """By symbol and timeframe: its candles that begin up to then are complete, by the feed's clock or since
    their own last minute is there. Without bars there is no time."""
    complete: dict[str, dict[str, datetime]] = {symbol: {} for symbol in symbols}
    for symbol, timeframe, up_to in conn.execute(COMPLETE, (list(symbols),)):
        complete[symbol][timeframe] = up_to
    return complete


def judgeable(
    conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
) -> list[Span]:
    """The part of the spans whose windows are what they were, though old bars have been dropped.

    Candles of longer timeframes stay. Where bars are gone the events that were found in them stand:
    without them, other events would be found, and most would be taken back.
    """
    dropped = timeframe == "1min" and fetch_value(
        conn, "select nullif(tickstock.bars_since(), '-infinity')"
    )
    if not dropped:
        return list(spans)
    kept = []
    for span in spans:
        since: datetime | None = span.since
        if span.since < dropped + NEAR_DROPPED:
            asked = {"symbol": span.symbol, "dropped": dropped, "reach": reach}
            (since,) = conn.execute(JUDGEABLE_SINCE, asked).fetchone() or (None,)
        if since is not None and since <= span.until:
            kept.append(span._replace(since=max(since, span.since)))
    return kept


def read_windows(
    conn: Connection[TupleRow], timeframe: str, spans: Sequence[Span], *, reach: int
) -> Windows:
    """The candles of each span, and of the `reach` candles after it, for these look back at it.

    With as many before, as far as there are any.
    """
    return windows_of(read_series(conn, timeframe, spans, reach=reach))


def windows_of(several: Iterable[Series]) -> Windows:
    """Newest candles side by side: patterns are asked about thousands of windows at once."""
    apart = list(_apart(several))
    newest = [each for each in apart if each.judged == 1]
    others = [each for each in apart if each.judged != 1]
    return Windows([side_by_side(newest)] if newest else [], others)


def _apart(several: Iterable[Series]) -> Iterator[Series]:
    """Spans of one symbol overlap where candles after one look back at it, and are in the next: what was
    judged in one is not judged in another."""
    by_symbol = sorted(several, key=lambda each: (each.symbol, each.span.since))
    for _, some in groupby(by_symbol, key=attrgetter("symbol")):
        judged = -np.inf
        for each in some:
            again = int(np.searchsorted(each.ts[each.first :], judged, side="right"))
            yield each._replace(first=each.first + again, prices=each.prices[again:])
            if len(each.ts):
                judged = max(judged, float(each.ts[-1]))


def side_by_side(several: Sequence[Series]) -> Newest:
    length = max(len(each.ts) for each in several)
    columns = np.full((6, length, len(several)), np.nan)
    for number, each in enumerate(several):
        columns[:, length - len(each.ts) :, number] = each.columns
    prices = [price for each in several for price in each.prices]
    return Newest([each.span for each in several], columns, prices)


def read_series(
    conn: Connection[TupleRow],
    timeframe: str,
    spans: Sequence[Span],
    *,
    reach: int,
    after: int | None = None,
) -> Iterator[Series]:
    """The candles of each span, and of the `reach` candles after it, for these look back at it.

    With as many before, as far as there are any. after: that many after it instead.
    """
    if not spans:
        return
    after = reach if after is None else after
    symbols, since, until = (list(column) for column in zip(*spans, strict=True))
    with float_arrays(conn) as cursor:
        for nth, *columns, prices in cursor.execute(
            WINDOWS[timeframe], (symbols, since, until, reach, after)
        ):
            there = NOTHING if columns[0] is None else np.stack(columns)
            yield _cut(spans[nth - 1], there, prices or "", reach, after)


NOTHING: Floats = np.empty((6, 0))


def _cut(span: Span, columns: Floats, prices: str, reach: int, after: int) -> Series:
    """What is needed of what was read, which may be more."""
    ts = columns[0]
    first = int(np.searchsorted(ts, span.since.timestamp()))
    beyond = int(np.searchsorted(ts, span.until.timestamp(), side="right"))
    begin, end = max(0, first - reach), min(len(ts), beyond + after)
    last = max(span.until, at(ts[end - 1])) if end else span.until
    return Series(
        span._replace(until=last),
        columns[:, begin:end],
        first - begin,
        prices.split(" ")[: end - first] if end > first else [],
        beyond=last > span.until,
    )
