"""OpeningRangeBreakout: the first close beyond the range of the session's first minutes."""

import numpy as np

from tickstock.patterns import Candles, Found, Parameters, pattern
from tickstock.patterns.arithmetic import share
from tickstock.patterns.session import INTRADAY, whole_session


@pattern(
    "OpeningRangeBreakout",
    candles=whole_session,
    timeframes=INTRADAY,
    parameters={"minutes": 30},
    source="Crabel, Day Trading with Short Term Price Patterns and Opening Range Breakout",
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
    up = c.close[-1] > high
    distance = np.where(up, c.close[-1] - high, low - c.close[-1])
    return Found(
        where,
        np.where(up, 1, -1).astype(np.int8),
        share(distance, high - low),
        {"range_high": high, "range_low": low},
    )
