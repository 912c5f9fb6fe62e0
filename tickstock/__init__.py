"""tickstock: a live market feed into TimescaleDB, every timeframe exact, patterns published.

From Python: `candles()`, `events()` and `query()` return pandas DataFrames, `connect()` a connection.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickstock.api import candles, connect, events, query

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "candles", "connect", "events", "query"]


def __getattr__(name: str) -> Any:
    """The API when it is asked for: pandas takes seconds, and the command line does without."""
    if name in __all__:
        from tickstock import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
