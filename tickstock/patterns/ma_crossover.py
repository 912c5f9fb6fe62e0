"""MACrossover: the fast moving average crosses the slow one."""

import numpy as np

from tickstock.patterns import Candles, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, at_most, below, ema, mean, share

SPANS = 4
"""Length of the window in slow spans: what came before weighs less than 0.04% in the averages."""


@pattern(
    "MACrossover",
    candles=lambda p, _timeframe: SPANS * p.whole("slow") + 1,
    parameters={"fast": 12, "slow": 26},
    source="the original plan; Appel's spans of the MACD",
)
def ma_crossover(c: Candles, p: Parameters) -> Found:
    """The exponential mean of 12 closes crosses that of 26.

    Long where fast <= slow one candle before and fast > slow now; short the other way round. Both
    means run over the window of 4 * slow + 1 candles and begin with its first close: an average
    without a beginning would differ by where the history happens to begin.
    fast, slow: spans in candles, smoothing 2 / (span + 1).
    Strength: how fast they cross, as the change of their distance in this candle, in mean ranges
    (high - low) of the last `slow` candles; 1 from a whole one on.
    """
    slow = ema(c.close, p.whole("slow"))[-2:]
    fast = ema(c.close, p.whole("fast"))[-2:]
    up = at_most(fast[0], slow[0]) & above(fast[1], slow[1])
    down = at_least(fast[0], slow[0]) & below(fast[1], slow[1])
    change = np.abs((fast[1] - slow[1]) - (fast[0] - slow[0]))
    usual = mean((c.high - c.low)[-p.whole("slow") :])
    direction = np.where(up, 1, -1).astype(np.int8)
    return Found(up | down, direction, share(change, usual), {"fast": fast[1], "slow": slow[1]})
