"""What patterns of the trading day share."""

import numpy as np
import pandas as pd

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
    session = np.cumsum(np.diff(c.opens_at, prepend=np.nan) != 0)
    highest = pd.Series(np.where(counted, values, -np.inf)).groupby(session).cummax().to_numpy()
    before = np.full(len(c), -np.inf)
    same = session[1:] == session[:-1]
    before[1:][same] = highest[:-1][same]
    return before
