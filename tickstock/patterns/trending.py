"""TrendingUp and TrendingDown: a trend begins."""

from numpy.lib.stride_tricks import sliding_window_view

from tickstock.patterns import Candles, Floats, Found, FoundAt, Parameters, pattern
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


def ups(c: Candles, p: Parameters) -> FoundAt:
    """TrendingUp in all windows of a series."""
    return beginnings(c, p, 1)


def downs(c: Candles, p: Parameters) -> FoundAt:
    """TrendingDown in all windows of a series."""
    return beginnings(c, p, -1)


def beginnings(c: Candles, p: Parameters, sign: int) -> FoundAt:
    """Each candle's slope is computed once: it is the slope before of the next one."""
    closes = sliding_window_view(c.close, length(p, c.timeframe) - 1).T
    steep, limit = steepness(closes, p)
    if sign > 0:
        where = above(steep[1:], limit[1:]) & at_most(steep[:-1], limit[:-1])
    else:
        where = below(steep[1:], -limit[1:]) & at_least(steep[:-1], -limit[:-1])
    at = where.nonzero()[0]
    now = at + 1
    details = {"slope": steep[now], "limit": sign * limit[now], "slope_before": steep[at]}
    return FoundAt(at, sign, fit(closes[:, now]), details)


@pattern("TrendingUp", candles=length, parameters=PARAMETERS, source=SOURCE, series=ups)
def trending_up(c: Candles, p: Parameters) -> Found:
    """A rising trend begins: the regression line of 10 closes has become steep.

    slope(closes) > min_slope * mean(closes) over the last `length` candles, and not yet so one candle
    before. The original plan takes the slope in dollars and repeats the event while the trend lasts. As a
    share of the price, one limit fits stocks of 5 dollars and of 500.
    length: candles, 2 or more. min_slope: share of the price a candle, 0.001 is a tenth of a percent.
    Strength: R squared, how much of the closes' movement the line explains.
    """
    (now, limit), (then, limit_then) = steepness(c.close[1:], p), steepness(c.close[:-1], p)
    where = above(now, limit) & at_most(then, limit_then)
    return Found(where, 1, fit(c.close[1:]), {"slope": now, "limit": limit, "slope_before": then})


@pattern("TrendingDown", candles=length, parameters=PARAMETERS, source=SOURCE, series=downs)
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
    steep = slope(closes)
    # Not "** 2", which of a single number is not always the same bits as of an array.
    explained = steep * steep * sum((n - middle) ** 2 for n in range(len(closes)))
    return share(explained, add_up((closes - mean(closes)) ** 2))
