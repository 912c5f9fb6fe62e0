"""Doji: a candle that closes where it opened."""

from tickstock.patterns import Signal, Window, pattern

MAX_BODY = 0.1
"""Largest body, as a share of the range."""
MIN_RANGE = 0.01
"""Smallest range (high - low), in currency: a candle of one price says nothing."""


@pattern("Doji", candles=1)
def doji(window: Window) -> Signal | None:
    """The body is at most a tenth of the range: buyers and sellers ended even."""
    price_range = window.high[-1] - window.low[-1]
    body = abs(window.close[-1] - window.open[-1])
    # Prices are decimal, floats are not: a range of one cent is 0.00999… as often as 0.01000….
    if price_range < MIN_RANGE - 1e-9 or body > MAX_BODY * price_range + 1e-9:
        return None
    return Signal("neutral", {"body": round(body, 6), "range": round(price_range, 6)})
