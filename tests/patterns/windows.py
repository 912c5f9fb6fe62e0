"""Windows of candles for pattern functions, written as a person would."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from tickstock.patterns import Window

NEW_YORK = ZoneInfo("America/New_York")


class Candle(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: float = 100


def window(candles: Sequence[Candle], *, end: str = "2025-11-24 10:00") -> Window:
    """Minute candles in a row, the last of which begins at `end`, New York time."""
    last = datetime.fromisoformat(end).replace(tzinfo=NEW_YORK).timestamp()
    minute = timedelta(minutes=1).total_seconds()
    starts = np.array([last - minute * back for back in reversed(range(len(candles)))])
    columns = (np.array(column, dtype=np.float64) for column in zip(*candles, strict=True))
    return Window("AAPL", "1min", starts, *columns)
