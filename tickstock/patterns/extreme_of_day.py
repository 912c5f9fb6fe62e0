"""HighOfDay and LowOfDay: a candle goes beyond the extreme of its session so far."""

import numpy as np

from tickstock.patterns import Candles, Floats, Found, FoundAt, Parameters, pattern
from tickstock.patterns.arithmetic import share
from tickstock.patterns.session import INTRADAY, highest_before, whole_session

SOURCE = "the original plan"


def extremes_before(c: Candles) -> tuple[Floats, Floats]:
    """Highest high and lowest low of the session before the judged candle; NaN where there is none."""
    before = c.in_session[:-1]
    high = np.where(before, c.high[:-1], -np.inf).max(axis=0, initial=-np.inf)
    low = np.where(before, c.low[:-1], np.inf).min(axis=0, initial=np.inf)
    return np.where(np.isfinite(high), high, np.nan), np.where(np.isfinite(low), low, np.nan)


def highs(c: Candles, p: Parameters) -> FoundAt:
    """HighOfDay in all windows of a series."""
    return beyond(c, p, c.high, c.low, 1)


def lows(c: Candles, p: Parameters) -> FoundAt:
    """LowOfDay in all windows of a series."""
    return beyond(c, p, -c.low, -c.high, -1)


def beyond(c: Candles, p: Parameters, prices: Floats, opposite: Floats, sign: int) -> FoundAt:
    """Where prices are above all before in the session; upside down, negated, for lows."""
    first = whole_session(p, c.timeframe) - 1
    extreme = highest_before(c, prices, c.in_session)
    where = c.in_session & (prices > extreme) & np.isfinite(extreme)
    where[:first] = False
    at = where.nonzero()[0]
    other = -highest_before(c, -opposite, c.in_session)[at]
    now, broken = prices[at], extreme[at]
    name = "high" if sign > 0 else "low"
    details = {name: sign * now, "broken": sign * broken}
    return FoundAt(at - first, sign, share(now - broken, broken - other), details)


@pattern("HighOfDay", candles=whole_session, timeframes=INTRADAY, source=SOURCE, series=highs)
def high_of_day(c: Candles, _p: Parameters) -> Found:
    """The high is above all highs of the regular session before.

    Candles of the regular session alone count, and the first one breaks nothing.
    Strength: how far above, in ranges of the session before; 1 from a whole one on, 0 where it had none.
    """
    high, low = extremes_before(c)
    where = c.in_session[-1] & (c.high[-1] > high)
    return Found(
        where, 1, share(c.high[-1] - high, high - low), {"high": c.high[-1], "broken": high}
    )


@pattern("LowOfDay", candles=whole_session, timeframes=INTRADAY, source=SOURCE, series=lows)
def low_of_day(c: Candles, _p: Parameters) -> Found:
    """The low is below all lows of the regular session before.

    Candles of the regular session alone count, and the first one breaks nothing.
    Strength: how far below, in ranges of the session before; 1 from a whole one on, 0 where it had none.
    """
    high, low = extremes_before(c)
    where = c.in_session[-1] & (c.low[-1] < low)
    return Found(where, -1, share(low - c.low[-1], high - low), {"low": c.low[-1], "broken": low})
