"""TrendingUp and TrendingDown: a trend begins."""

from tickstock.patterns import Candles, Floats, Found, Parameters, pattern
from tickstock.patterns.arithmetic import (
    above,
    add_up,
    at_least,
    at_most,
    below,
    mean,
    share,
    slope,
)

PARAMETERS = {"length": 10, "min_slope": 0.001}
SOURCE = "the original plan; the slope as a share of the price is our own"


def length(p: Parameters, _timeframe: str) -> int:
    return max(2, p.whole("length")) + 1


@pattern("TrendingUp", candles=length, parameters=PARAMETERS, source=SOURCE)
def trending_up(c: Candles, p: Parameters) -> Found:
    """A rising trend begins: the regression line of 10 closes has become steep.

    slope(closes) > min_slope * mean(closes) over the last `length` candles, and not yet so one candle
    before. The plan takes the slope in dollars and repeats the event while the trend lasts; as a share
    of the price the same limit does for a stock of 5 dollars and one of 500.
    length: candles, 2 or more. min_slope: share of the price a candle, 0.001 is a tenth of a percent.
    Strength: R squared, how much of the closes' movement the line explains.
    """
    (now, limit), (then, limit_then) = steepness(c.close[1:], p), steepness(c.close[:-1], p)
    where = above(now, limit) & at_most(then, limit_then)
    return Found(where, 1, fit(c.close[1:]), {"slope": now, "limit": limit, "slope_before": then})


@pattern("TrendingDown", candles=length, parameters=PARAMETERS, source=SOURCE)
def trending_down(c: Candles, p: Parameters) -> Found:
    """A falling trend begins: the regression line of 10 closes has become steep.

    slope(closes) < -min_slope * mean(closes) over the last `length` candles, and not yet so one candle
    before. The mirror image of TrendingUp.
    length: candles, 2 or more. min_slope: share of the price a candle, 0.001 is a tenth of a percent.
    Strength: R squared, how much of the closes' movement the line explains.
    """
    (now, limit), (then, limit_then) = steepness(c.close[1:], p), steepness(c.close[:-1], p)
    where = below(now, -limit) & at_least(then, -limit_then)
    return Found(where, -1, fit(c.close[1:]), {"slope": now, "limit": -limit, "slope_before": then})


def steepness(closes: Floats, p: Parameters) -> tuple[Floats, Floats]:
    """The slope, and the least that counts, both in dollars a candle."""
    return slope(closes), p.min_slope * mean(closes)


def fit(closes: Floats) -> Floats:
    """R squared of the regression line."""
    middle = (len(closes) - 1) / 2
    explained = slope(closes) ** 2 * sum((n - middle) ** 2 for n in range(len(closes)))
    return share(explained, add_up((closes - mean(closes)) ** 2))
