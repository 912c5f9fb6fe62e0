"""Trying a pattern out: on stored candles, or on a random market."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import fetch_value
from tickstock.patterns import Candles, Floats, Pattern, SqlPattern
from tickstock.patterns.evaluate import DIRECTIONS, Chosen, Failures, history
from tickstock.scan.judge import PATTERN_TIMEOUT, TimeLimit, judge
from tickstock.scan.windows import Span, at, complete_up_to
from tickstock.simulator import RandomMarket

NEW_YORK = ZoneInfo("America/New_York")
MARKET_BEGINS = datetime(2025, 6, 2, 4, tzinfo=NEW_YORK)
LONGEST_MARKET = 150
"""Days: all of them have summer time."""
FROM_UTC = 4 * 3600.0
"""Seconds by which New York is behind in summer."""
A_DAY = 86_400.0
OPENS, CLOSES = 9.5 * 3600, 16 * 3600
WIDTHS = {"1min": 60, "5min": 300, "15min": 900, "30min": 1800, "1hour": 3600, "4hour": 14_400}
SYMBOLS = """
select symbol from ohlcv_daily where ts >= %s::timestamptz - interval '7 days' and ts <= %s
group by symbol order by sum(close * volume) desc limit %s
"""


class Hit(NamedTuple):
    symbol: str
    ts: datetime
    direction: str
    strength: float


@dataclass
class Outcome:
    """What a pattern found in candles of one timeframe."""

    timeframe: str
    candles: int = 0
    """That were judged."""
    hits: list[Hit] = field(default_factory=list)

    @property
    def directions(self) -> Counter[str]:
        return Counter(hit.direction for hit in self.hits)


class Remembering(Failures):
    """Keeps the first failure instead of logging it."""

    def __init__(self) -> None:
        super().__init__()
        self.first: tuple[str, Exception] | None = None
        """Timeframe, and what went wrong."""

    def report(self, pattern: str, timeframe: str, error: Exception) -> None:  # noqa: ARG002
        self.first = self.first or (timeframe, error)


def symbols_with_bars(conn: Connection[TupleRow], most: int) -> list[str]:
    """Those with the largest turnover in the feed's last seven days."""
    clock = fetch_value(conn, "select feed_clock()")
    if clock is None:
        return []
    return [symbol for (symbol,) in conn.execute(SYMBOLS, (clock, clock, most))]


def on_stored_candles(
    conn: Connection[TupleRow],
    pattern: Pattern,
    symbols: Sequence[str],
    days: int,
    failures: Failures,
    *,
    pattern_timeout: float = PATTERN_TIMEOUT,
) -> Iterator[Outcome]:
    """On complete candles of the feed's last days, with the pattern's defaults. Nothing is written.

    pattern_timeout: seconds that a pattern in SQL may take for a timeframe.
    """
    limit = TimeLimit(pattern_timeout)
    complete = complete_up_to(conn, symbols)
    for timeframe in pattern.timeframes:
        ends = [(symbol, complete[symbol][timeframe]) for symbol in symbols]
        spans = [Span(symbol, until - timedelta(days=days), until) for symbol, until in ends]
        judged = judge(
            conn, timeframe, spans, [_with_defaults(pattern, timeframe)], failures, limit
        )
        candles = [(symbol, at(ts)) for symbol, ts in judged.each()]
        directions = map(DIRECTIONS.__getitem__, judged.found.direction)
        hits = [
            Hit(*candles[number], direction, strength)
            for number, direction, strength in zip(
                judged.found.candle, directions, judged.found.strength, strict=True
            )
        ]
        yield Outcome(timeframe, judged.candles, sorted(hits, key=lambda hit: hit.ts))


class Market:
    """A random market's candles: the same ones for the same numbers."""

    def __init__(self, symbols: int, days: int, *, seed: int = 1) -> None:
        """days: of the calendar, at most LONGEST_MARKET; on weekends nobody trades."""
        days = min(days, LONGEST_MARKET)
        end = MARKET_BEGINS + timedelta(days=days)
        self._market = RandomMarket(symbols, seed=seed, start=MARKET_BEGINS, end=end)

    @cached_property
    def _bars(self) -> dict[str, Floats]:
        """By symbol (6, bars): start in seconds since 1970, open, high, low, close, volume."""
        rows: dict[str, list[tuple[float, ...]]] = {symbol: [] for symbol in self._market.symbols}
        for minute in self._market.minutes():
            start = minute.ts.timestamp()
            for bar in minute.bars:
                rows[bar.symbol].append((start, *map(float, bar[2:7])))
        return {symbol: np.array(some).reshape(-1, 6).T for symbol, some in rows.items()}

    def try_out(self, pattern: Pattern, failures: Failures) -> Iterator[Outcome]:
        """With the pattern's defaults. Patterns in SQL need a database: ValueError."""
        if isinstance(pattern, SqlPattern):
            raise ValueError("a pattern in SQL needs a database")
        for timeframe in pattern.timeframes:
            candles, begins, symbols = self._candles(timeframe)
            chosen = _with_defaults(pattern, timeframe)
            hits = [
                Hit(
                    symbols[hit.at],
                    datetime.fromtimestamp(candles.ts[hit.at], NEW_YORK),
                    hit.direction,
                    hit.strength,
                )
                for hit in history([chosen], candles, failures, begins=begins)
            ]
            yield Outcome(timeframe, len(candles), sorted(hits, key=lambda hit: hit.ts))

    def _candles(self, timeframe: str) -> tuple[Candles, list[int], list[str]]:
        """One symbol's series after the other, where each begins, and each candle's symbol."""
        series = [_made_of(bars, timeframe) for bars in self._bars.values()]
        sizes = [each.shape[1] for each in series]
        begins = [sum(sizes[:number]) for number in range(len(sizes))]
        symbols = [name for name, size in zip(self._bars, sizes, strict=True) for _ in range(size)]
        return Candles(timeframe, *np.concatenate(series, axis=1)), begins, symbols


def _made_of(bars: Floats, timeframe: str) -> Floats:
    """(8, candles): the columns of bars, and opening and close of the session of the candle's day."""
    local = bars[0] - FROM_UTC
    if timeframe not in WIDTHS:
        within = (local % A_DAY >= OPENS) & (local % A_DAY < CLOSES)
        bars, local = bars[:, within], local[within]
    starts = _starts(local, timeframe)
    firsts = np.flatnonzero(np.diff(starts, prepend=-np.inf))
    lasts = np.append(firsts[1:], len(starts)) - 1
    midnight = starts[firsts] // A_DAY * A_DAY + FROM_UTC
    return np.stack(
        (
            starts[firsts] + FROM_UTC,
            bars[1, firsts],
            np.maximum.reduceat(bars[2], firsts),
            np.minimum.reduceat(bars[3], firsts),
            bars[4, lasts],
            np.add.reduceat(bars[5], firsts),
            midnight + OPENS,
            midnight + CLOSES,
        )
    )


def _starts(local: Floats, timeframe: str) -> Floats:
    """Starts of the candles that hold these moments, in seconds of New York's clocks."""
    days = local // A_DAY
    if timeframe == "monthly":
        months = days.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[s]")
        return months.astype(np.float64)
    if timeframe == "weekly":
        return ((days + 3) // 7 * 7 - 3) * A_DAY  # 1970 began on a Thursday
    width = WIDTHS.get(timeframe, A_DAY)
    return local // width * width


def _with_defaults(pattern: Pattern, timeframe: str) -> Chosen:
    return Chosen(pattern, pattern.parameters, pattern.candles(pattern.parameters, timeframe))
