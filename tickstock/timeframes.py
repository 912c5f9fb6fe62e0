"""The timeframes, by the names that also name the relations: `ohlcv_` || timeframe."""

TIMEFRAMES = (
    "1min",
    "5min",
    "15min",
    "30min",
    "1hour",
    "4hour",
    "daily",
    "weekly",
    "monthly",
)
