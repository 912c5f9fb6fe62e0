"""ClosedInTopRange and ClosedInBottomRange: who had the last word in a candle."""

from tickstock.patterns import Candles, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, at_most, share

PARAMETERS = {"max_distance": 0.1, "min_range": 0.02}


@pattern("ClosedInTopRange", candles=1, parameters=PARAMETERS, source="the original plan")
def closed_in_top_range(c: Candles, p: Parameters) -> Found:
    """The candle closes within a tenth of its range from the high: buyers had the last word.

    high - close <= max_distance * (high - low), and high - low >= min_range and above 0.
    max_distance: a share of the range. min_range: dollars.
    Strength: how high in its range it closes, 1 at the high.
    """
    price_range, distance = c.high[-1] - c.low[-1], c.high[-1] - c.close[-1]
    where = (
        at_most(distance, p.max_distance * price_range)
        & at_least(price_range, p.min_range)
        & above(price_range, 0)
    )
    details = {"range": price_range, "distance": distance}
    return Found(where, 1, 1 - share(distance, price_range), details)


@pattern("ClosedInBottomRange", candles=1, parameters=PARAMETERS, source="the original plan")
def closed_in_bottom_range(c: Candles, p: Parameters) -> Found:
    """The candle closes within a tenth of its range from the low: sellers had the last word.

    close - low <= max_distance * (high - low), and high - low >= min_range and above 0.
    max_distance: a share of the range. min_range: dollars.
    Strength: how low in its range it closes, 1 at the low.
    """
    price_range, distance = c.high[-1] - c.low[-1], c.close[-1] - c.low[-1]
    where = (
        at_most(distance, p.max_distance * price_range)
        & at_least(price_range, p.min_range)
        & above(price_range, 0)
    )
    details = {"range": price_range, "distance": distance}
    return Found(where, -1, 1 - share(distance, price_range), details)
