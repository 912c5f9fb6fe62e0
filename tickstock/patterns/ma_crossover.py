"""MACrossover: the fast moving average crosses the slow one."""

import numpy as np

from tickstock.patterns import Bools, Candles, Floats, Found, FoundAt, Parameters, pattern
from tickstock.patterns.arithmetic import (
    above,
    at_least,
    at_most,
    below,
    mean,
    share,
    trailing_ema,
)

SPANS = 4
"""Length of an average in slow spans: what came before would weigh less than 0.04%."""


def length(p: Parameters, _timeframe: str) -> int:
    """An average's candles, and one more for those that end one candle before."""
    p.whole("fast")  # as whole as the other, though the number of candles does not depend on it
    return SPANS * p.whole("slow") + 1


def averages(c: Candles, p: Parameters) -> tuple[Floats, Floats]:
    """Fast and slow, as trailing_ema() tells them."""
    candles = SPANS * p.whole("slow")
    return tuple(trailing_ema(c.close, p.whole(name), candles) for name in ("fast", "slow"))  # type: ignore[return-value]


def crossed(before: tuple[Floats, Floats], now: tuple[Floats, Floats]) -> tuple[Bools, Bools]:
    """Upwards, downwards."""
    return (
        at_most(before[0], before[1]) & above(now[0], now[1]),
        at_least(before[0], before[1]) & below(now[0], now[1]),
    )


def across(c: Candles, p: Parameters) -> FoundAt:
    """All windows of a series."""
    fast, slow = averages(c, p)
    up, down = crossed((fast[:-1], slow[:-1]), (fast[1:], slow[1:]))
    at = (up | down).nonzero()[0]
    first = np.arange(-p.whole("slow"), 0)[:, np.newaxis]
    recent = at + length(p, c.timeframe) + first
    ranges = c.high[recent] - c.low[recent]
    change = np.abs((fast[at + 1] - slow[at + 1]) - (fast[at] - slow[at]))
    direction = np.where(up[at], 1, -1).astype(np.int8)
    details = {"fast": fast[at + 1], "slow": slow[at + 1]}
    return FoundAt(at, direction, share(change, mean(ranges)), details)


@pattern(
    "MACrossover",
    candles=length,
    parameters={"fast": 12, "slow": 26},
    source="the original plan; Appel's spans of the MACD",
    series=across,
)
def ma_crossover(c: Candles, p: Parameters) -> Found:
    """The exponential mean of 12 closes crosses that of 26.

    Long where fast <= slow one candle before and fast > slow now; short the other way round. Each
    mean runs over 4 * slow candles and begins with the close of their first: an average without a
    beginning would differ by where the history happens to begin.
    fast, slow: spans in candles, smoothing 2 / (span + 1).
    Strength: how fast they cross, as the change of their distance in this candle, in mean ranges
    (high - low) of the last `slow` candles; 1 from a whole one on.
    """
    fast, slow = averages(c, p)
    up, down = crossed((fast[-2], slow[-2]), (fast[-1], slow[-1]))
    change = np.abs((fast[-1] - slow[-1]) - (fast[-2] - slow[-2]))
    usual = mean((c.high - c.low)[-p.whole("slow") :])
    direction = np.where(up, 1, -1).astype(np.int8)
    return Found(up | down, direction, share(change, usual), {"fast": fast[-1], "slow": slow[-1]})
