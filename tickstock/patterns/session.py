"""What patterns of the trading day share."""

from tickstock.patterns.definition import Parameters

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
