"""OpeningRangeBreakout: the first close beyond the range of the session's first minutes."""

import numpy as np
from numpy.typing import NDArray

from tickstock.patterns import Candles, Floats, Found, FoundAt, Parameters, pattern
from tickstock.patterns.arithmetic import share
from tickstock.patterns.session import INTRADAY, highest_before, whole_session


def breakouts(c: Candles, p: Parameters) -> FoundAt:
    """All windows of a series."""
    first = whole_session(p, c.timeframe) - 1
    early = c.in_session & (c.ts < c.opens_at + 60 * p.minutes)
    later = c.in_session & (c.ts >= c.opens_at + 60 * p.minutes)
    high, low = highest_before(c, c.high, early), -highest_before(c, -c.low, early)
    outside = later & np.isfinite(high) & ((c.close > high) | (c.close < low))
    where = outside & np.isneginf(highest_before(c, c.close, outside))
    where[:first] = False
    at = where.nonzero()[0]
    return FoundAt(at - first, *told(c.close[at], high[at], low[at]))


def told(
    close: Floats, high: Floats, low: Floats
) -> tuple[NDArray[np.int8], Floats, dict[str, Floats]]:
    """Direction, strength and details."""
    up = close > high
    distance = np.where(up, close - high, low - close)
    direction = np.where(up, 1, -1).astype(np.int8)
    return direction, share(distance, high - low), {"range_high": high, "range_low": low}


@pattern(
    "OpeningRangeBreakout",
    candles=whole_session,
    timeframes=INTRADAY,
    parameters={"minutes": 30},
    source="Crabel, Day Trading with Short Term Price Patterns and Opening Range Breakout",
    series=breakouts,
)
def opening_range_breakout(c: Candles, p: Parameters) -> Found:
    """The first close beyond the range of the session's first 30 minutes.

    The range is that of the candles that begin in the first `minutes` of the regular session. Long:
    the first later candle of the session that closes outside it closes above; short: below. Once a day
    at most.
    minutes: after the open.
    Strength: how far outside, in widths of the range; 1 from a whole one on.
    """
    early = c.in_session & (c.ts < c.opens_at + 60 * p.minutes)
    high = np.where(early, c.high, -np.inf).max(axis=0)
    low = np.where(early, c.low, np.inf).min(axis=0)
    outside = (
        c.in_session & ((c.close > high) | (c.close < low)) & (c.ts >= c.opens_at + 60 * p.minutes)
    )
    where = outside[-1] & ~outside[:-1].any(axis=0) & early.any(axis=0)
    return Found(where, *told(c.close[-1], high, low))
