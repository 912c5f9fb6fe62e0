"""What patterns of the trading day share."""

import numpy as np

from tickstock.patterns.definition import Bools, Candles, Floats, Parameters

INTRADAY = ("5min", "15min", "30min")
MINUTES = {"1min": 1, "5min": 5, "15min": 15, "30min": 30}
SESSION = 390
"""Minutes of the longest regular session."""


def whole_session(_parameters: Parameters, timeframe: str) -> int:
    """As many candles as a session has. ValueError for a timeframe that does not divide it."""
    if timeframe not in MINUTES:
        raise ValueError(
            f"candles of {timeframe} do not divide the session: use {', '.join(MINUTES)}"
        )
    return SESSION // MINUTES[timeframe]


def highest_before(c: Candles, values: Floats, counted: Bools) -> Floats:
    """At each candle of a series, the highest value so far in its own session, of the candles counted:
    its own is none of them. (length,); -inf where there is none."""
    # A session is known by its opening, and a gap between two symbols by having none.
    begins = np.diff(c.opens_at, prepend=np.nan) != 0
    # Of two complex numbers the greater is that with the greater real part, then imaginary part: a
    # session's numbers are above all of those before.
    ranked = np.empty(len(c), dtype=np.complex128)
    ranked.real = np.cumsum(begins)
    ranked.imag = np.where(counted, values, -np.inf)
    before = np.full(len(c), -np.inf)
    before[1:] = np.maximum.accumulate(ranked).imag[:-1]
    before[begins] = -np.inf
    return before
