"""Doji: a candle that closes where it opened."""

import numpy as np

from tickstock.patterns import Candles, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, at_most, share


@pattern(
    "Doji",
    candles=1,
    parameters={"max_body": 0.1, "min_range": 0.01},
    source="the original plan, with its later limit of a tenth",
)
def doji(c: Candles, p: Parameters) -> Found:
    """The body is at most a tenth of the range: buyers and sellers ended even.

    |close - open| <= max_body * (high - low), and high - low >= min_range and above 0.
    max_body: a share of the range. min_range: dollars; a candle of one price says nothing.
    Strength: the share of the range that is not body.
    """
    price_range = c.high[-1] - c.low[-1]
    body = np.abs(c.close[-1] - c.open[-1])
    where = (
        at_most(body, p.max_body * price_range)
        & at_least(price_range, p.min_range)
        & above(price_range, 0)
    )
    return Found(where, 0, 1 - share(body, price_range), {"body": body, "range": price_range})
