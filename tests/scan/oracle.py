"""Which candles are complete, worked out from the bars alone in Python and exchange_calendars."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache

import exchange_calendars

from tests.scan.support import NEW_YORK
from tickstock.bars import Bar
from tickstock.scan.scanner import Candle
from tickstock.timeframes import TIMEFRAMES

MINUTE = timedelta(minutes=1)
WIDTHS = {"1min": 1, "5min": 5, "15min": 15, "30min": 30, "1hour": 60}
OF_SESSIONS = ("daily", "weekly", "monthly")


def complete_candles(bars: Sequence[Bar]) -> set[Candle]:
    """The candles of which no bar can be missing, if bars come in the order of their minutes.

    A candle is complete once a later minute has begun for anybody, or its own last minute is there.
    """
    clock = max(bar.ts for bar in bars)
    minutes = {(bar.symbol, bar.ts) for bar in bars}

    def is_complete(candle: Candle) -> bool:
        end = complete_at(candle.timeframe, candle.ts)
        return clock >= end or (candle.symbol, end - MINUTE) in minutes

    return set(filter(is_complete, candles_of(bars)))


def candles_of(bars: Sequence[Bar]) -> set[Candle]:
    """The candles that these bars make, complete ones and forming ones."""
    return {
        Candle(timeframe, bar.symbol, start_of(timeframe, bar.ts))
        for bar in bars
        for timeframe in TIMEFRAMES
        if timeframe not in OF_SESSIONS or _in_session(bar.ts)
    }


@cache
def start_of(timeframe: str, ts: datetime) -> datetime:
    if timeframe in WIDTHS:
        return ts - timedelta(minutes=(ts.hour * 60 + ts.minute) % WIDTHS[timeframe])
    local = ts.astimezone(NEW_YORK)
    if timeframe == "4hour":
        return local.replace(hour=local.hour - local.hour % 4, minute=0).astimezone(UTC)
    midnight = local.replace(hour=0, minute=0)
    if timeframe == "weekly":
        midnight -= timedelta(days=midnight.weekday())
    elif timeframe == "monthly":
        midnight = midnight.replace(day=1)
    return midnight.astimezone(UTC)


@cache
def complete_at(timeframe: str, start: datetime) -> datetime:
    if timeframe in WIDTHS:
        return start + timedelta(minutes=WIDTHS[timeframe])
    local = start.astimezone(NEW_YORK)
    if timeframe == "4hour":
        return (local + timedelta(hours=4)).astimezone(UTC)
    last = local + timedelta(days=6 if timeframe == "weekly" else 0)
    if timeframe == "monthly":
        last = (local + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    closes = [
        closes for day, (_, closes) in _sessions().items() if local.date() <= day <= last.date()
    ]
    return max(closes)


def _in_session(ts: datetime) -> bool:
    session = _sessions().get(ts.astimezone(NEW_YORK).date())
    return session is not None and session[0] <= ts < session[1]


@cache
def _sessions() -> dict[date, tuple[datetime, datetime]]:
    """Open and close of each day with a session, UTC."""
    schedule = exchange_calendars.get_calendar("XNYS", start="2025-01-01").schedule
    return {
        day.date(): (opens.to_pydatetime(), closes.to_pydatetime())
        for day, opens, closes in zip(schedule.index, schedule.open, schedule.close, strict=True)
    }
