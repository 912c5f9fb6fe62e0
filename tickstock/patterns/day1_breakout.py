"""Day1Breakout: the morning leaves the range of the candles before, on volume."""

import numpy as np

from tickstock.patterns import Candles, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, mean, share


@pattern(
    "Day1Breakout",
    candles=lambda p, _timeframe: max(p.whole("extreme_of"), p.whole("mean_of")) + 1,
    timeframes=("1min", "5min", "15min", "30min", "1hour"),
    parameters={"minutes": 150, "extreme_of": 20, "mean_of": 50, "min_volume": 1.5},
    source="the original plan",
)
def day1_breakout(c: Candles, p: Parameters) -> Found:
    """Between 09:30 and 12:00 New York, a close beyond the extreme of 20 candles, on volume.

    The candle begins in the session's first `minutes`. Long: close > highest high of the extreme_of
    candles before; short: close < their lowest low. Volume > min_volume * mean volume of the mean_of
    candles before; all of these must be there.
    minutes: after the open. extreme_of, mean_of: candles. min_volume: times the mean.
    Strength: 1 - mean volume / volume: 0.5 for twice the usual volume, 0.75 for four times.
    """
    morning = (c.ts[-1] >= c.opens_at) & (c.ts[-1] < c.opens_at + 60 * p.minutes)
    usual = mean(c.volume[-p.whole("mean_of") - 1 : -1])
    loud = above(c.volume[-1], p.min_volume * usual)
    before = slice(-p.whole("extreme_of") - 1, -1)
    ceiling, floor = c.high[before].max(axis=0), c.low[before].min(axis=0)
    up, down = c.close[-1] > ceiling, c.close[-1] < floor
    return Found(
        morning & loud & (up | down),
        np.where(up, 1, -1).astype(np.int8),
        1 - share(usual, c.volume[-1]),
        {"broken": np.where(up, ceiling, floor), "volume": c.volume[-1], "mean_volume": usual},
    )
