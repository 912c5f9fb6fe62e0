"""Day1Breakout: the morning leaves the range of the bars before, on volume."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import numpy as np

from tickstock.patterns import Signal, Window, pattern

NEW_YORK = ZoneInfo("America/New_York")
FROM, UNTIL = time(9, 30), time(12, 0)
"""New York time of the candle's start, UNTIL exclusive."""
EXTREME_OF = 20
"""Candles before, whose extreme is to be broken."""
MEAN_OF = 50
"""Candles before, whose mean volume is the measure."""
MIN_VOLUME_RATIO = 1.5


@pattern(
    "Day1Breakout",
    candles=MEAN_OF + 1,
    timeframes=("1min", "5min", "15min", "30min", "1hour"),
)
def day1_breakout(window: Window) -> Signal | None:
    """Between 09:30 and 12:00 New York, a close beyond the extreme of 20 candles, on volume."""
    if len(window) < MEAN_OF + 1 or not _is_morning(window.ts[-1]):
        return None
    mean_volume = float(np.mean(window.volume[-MEAN_OF - 1 : -1]))
    # A mean of fractional volumes may come out a hair too low: equal is not above.
    if window.volume[-1] <= MIN_VOLUME_RATIO * mean_volume * (1 + 1e-9):
        return None
    ceiling = float(np.max(window.high[-EXTREME_OF - 1 : -1]))
    floor = float(np.min(window.low[-EXTREME_OF - 1 : -1]))
    numbers = {"volume": float(window.volume[-1]), "mean_volume": round(mean_volume, 2)}
    if window.close[-1] > ceiling:
        return Signal("long", {"broken": ceiling, **numbers})
    if window.close[-1] < floor:
        return Signal("short", {"broken": floor, **numbers})
    return None


def _is_morning(ts: float) -> bool:
    return FROM <= datetime.fromtimestamp(ts, UTC).astimezone(NEW_YORK).time() < UNTIL
