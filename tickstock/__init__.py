"""tickstock: a live market feed into TimescaleDB, every timeframe exact, patterns published."""

__version__ = "0.2.0.dev0"
