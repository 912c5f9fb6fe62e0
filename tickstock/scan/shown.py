"""Candles as patterns are shown them, and which judged candle each place of their answers is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.patterns import Bools, Candles, Floats
from tickstock.patterns.evaluate import Chosen, Failures, Hits, history_columns, live_columns
from tickstock.scan.windows import Newest, Series, Span, Windows

# Days from the one before, in New York, of the first time to that of the last.
SESSIONS = """
select extract(epoch from day::timestamp at time zone 'America/New_York')::float8,
  extract(epoch from (day + 1)::timestamp at time zone 'America/New_York')::float8,
  extract(epoch from opens_at)::float8, extract(epoch from closes_at)::float8
from trading_days where day between to_timestamp(%s)::date - 1 and to_timestamp(%s)::date + 1 order by day
"""
Numbers = NDArray[np.intp]


class Sessions(NamedTuple):
    """Regular sessions of some days. Arrays are (days,), seconds since 1970, UTC."""

    begins: Floats
    """Midnight in New York at which the day begins."""
    ends: Floats
    opens_at: Floats
    closes_at: Floats

    @classmethod
    def read(cls, conn: Connection[TupleRow], first: float, last: float) -> Self:
        """Those of the days from one time to another, seconds since 1970, UTC."""
        rows = conn.execute(SESSIONS, (first, last)).fetchall()
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


class Shown(NamedTuple):
    """Candles of one timeframe: windows, or series one after the other."""

    columns: Floats
    """(6, length, windows), of which the last candles are judged, or (6, candles): as those of a Series."""
    spans: list[Span]
    span: Numbers
    """(judged,): the span that each judged candle is in."""
    ts: Floats
    """(judged,): their starts, seconds since 1970, UTC."""
    prices: list[str]
    """Their closes, with all their digits."""
    number: Numbers
    """Which judged candle each window or candle is, -1 for one that is not judged."""
    oldest: Numbers
    """Of each window, or candle of a series: the place of the first one of its symbol."""

    @property
    def of_windows(self) -> bool:
        return self.columns.ndim == 3

    def find(
        self, timeframe: str, sessions: Sessions, chosen: Sequence[Chosen], failures: Failures
    ) -> Iterator[Hits]:
        ts, opened, high, low, close, volume = self.columns
        session = sessions.of(ts[-1] if self.of_windows else ts)
        candles = Candles(timeframe, ts, opened, high, low, close, volume, *session)
        if self.of_windows:
            return live_columns(chosen, candles, failures)
        begins: list[int] = np.unique(self.oldest).tolist()
        asked: Bools = self.number >= 0
        return history_columns(chosen, candles, failures, begins=begins, asked=asked)

    def looked_back_to(self, at: Numbers, reach: int) -> Floats:
        """Starts of the candles so many before those, or of the first ones there are."""
        ts: Floats = self.columns[0]
        if self.of_windows:
            return np.asarray(ts[np.maximum(len(ts) - 1 - reach, self.oldest[at]), at])
        return np.asarray(ts[np.maximum(at - reach, self.oldest[at])])


def shown(windows: Windows) -> list[Shown]:
    """Only what has candles to be judged."""
    several = [_windows(each) for each in windows.newest]
    if any(each.judged for each in windows.series):
        several.append(_series([each for each in windows.series if each.judged]))
    return several


def _windows(newest: Newest) -> Shown:
    ts = newest.columns[0]
    each = np.arange(ts.shape[1])
    return Shown(
        newest.columns,
        newest.spans,
        span=each,
        ts=ts[-1],
        prices=newest.prices,
        number=each,
        oldest=np.isnan(ts).sum(axis=0),
    )


def _series(several: Sequence[Series]) -> Shown:
    sizes = np.array([len(each.ts) for each in several])
    begins = np.cumsum(sizes) - sizes
    oldest = np.repeat(begins, sizes)
    judged = np.arange(sizes.sum()) - oldest >= np.repeat([each.first for each in several], sizes)
    columns = np.concatenate([each.columns for each in several], axis=1)
    return Shown(
        columns,
        [each.span for each in several],
        span=np.repeat(np.arange(len(several)), sizes)[judged],
        ts=columns[0, judged],
        prices=_joined(each.prices for each in several),
        number=np.where(judged, np.cumsum(judged) - 1, -1),
        oldest=oldest,
    )


def _joined(lists: Iterable[list[str]]) -> list[str]:
    return [each for some in lists for each in some]
