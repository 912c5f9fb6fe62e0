"""ClosedInTopRange and ClosedInBottomRange: who had the last word in a candle."""

from tickstock.patterns import Candles, Floats, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, at_most, share

PARAMETERS = {"max_distance": 0.1, "min_range": 0.02}


def near_the_end(c: Candles, p: Parameters, distance: Floats, direction: int) -> Found:
    """Where the close is not farther than that from the end of the range that it is measured from."""
    price_range = c.high[-1] - c.low[-1]
    where = (
        at_most(distance, p.max_distance * price_range)
        & at_least(price_range, p.min_range)
        & above(price_range, 0)
    )
    details = {"range": price_range, "distance": distance}
    return Found(where, direction, 1 - share(distance, price_range), details)


@pattern("ClosedInTopRange", candles=1, parameters=PARAMETERS, source="the original plan")
def closed_in_top_range(c: Candles, p: Parameters) -> Found:
    """The candle closes within a tenth of its range from the high: buyers had the last word.

    high - close <= max_distance * (high - low), and high - low >= min_range and above 0.
    max_distance: a share of the range. min_range: dollars.
    Strength: how high in its range it closes, 1 at the high.
    """
    return near_the_end(c, p, c.high[-1] - c.close[-1], 1)


@pattern("ClosedInBottomRange", candles=1, parameters=PARAMETERS, source="the original plan")
def closed_in_bottom_range(c: Candles, p: Parameters) -> Found:
    """The candle closes within a tenth of its range from the low: sellers had the last word.

    close - low <= max_distance * (high - low), and high - low >= min_range and above 0.
    max_distance: a share of the range. min_range: dollars.
    Strength: how low in its range it closes, 1 at the low.
    """
    return near_the_end(c, p, c.close[-1] - c.low[-1], -1)
