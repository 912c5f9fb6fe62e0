"""What the candles must be, worked out in pandas and exchange_calendars from the bars alone."""

from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import exchange_calendars
import pandas as pd
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.timeframes import TIMEFRAMES

NEW_YORK = "America/New_York"
COLUMNS = ["symbol", "ts", "open", "high", "low", "close", "volume", "vwap", "trades"]
LARGER = TIMEFRAMES[1:]
REGULAR = ("daily", "weekly", "monthly")

Column: TypeAlias = Any
"""A pandas Series; its stubs know less of time zones than pandas does."""


class Snapshot(NamedTuple):
    bars: pd.DataFrame
    candles: dict[str, list[TupleRow]]


def read_snapshot(conn: Connection[TupleRow]) -> Snapshot:
    """Bars and all larger candles as of one moment."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        bars = conn.execute(
            "select symbol, ts, open, high, low, close, volume, vwap, trades from ohlcv_1min"
        ).fetchall()
        candles = {
            timeframe: conn.execute(
                f"select * from ohlcv_{timeframe} order by symbol, ts"
            ).fetchall()
            for timeframe in LARGER
        }
    return Snapshot(pd.DataFrame(bars, columns=COLUMNS), candles)


def differences(snapshot: Snapshot, holidays: Iterable[str] = ()) -> list[str]:
    """Where the candles are not what the bars make them, in words; holidays: days taken off."""
    wrong = []
    for timeframe in LARGER:
        wanted = candles(snapshot.bars, timeframe, frozenset(holidays))
        got = {(row[0], row[1]): row[2:] for row in snapshot.candles[timeframe]}
        if len(got) != len(snapshot.candles[timeframe]):
            wrong.append(f"{timeframe}: a candle is there twice")
        wrong.extend(
            f"{timeframe} {key}: wanted {wanted.get(key)}, got {got.get(key)}"
            for key in sorted(wanted.keys() | got.keys())
            if not _same(wanted.get(key), got.get(key))
        )
    return wrong


def candles(bars: pd.DataFrame, timeframe: str, holidays: frozenset[str]) -> dict[Any, Any]:
    """Candles by (symbol, start): open … trades, bars, session, complete."""
    if bars.empty:
        return {}
    bars = bars.sort_values("ts")
    latest = bars["ts"].iloc[-1]
    if timeframe in REGULAR:
        bars = bars[_in_session(bars["ts"], holidays)]
    starts = _starts(bars["ts"], timeframe)
    found = {}
    for (symbol, start), group in bars.groupby([bars["symbol"], starts]):
        at = pd.Timestamp(str(start))
        more = (_session(at, timeframe, holidays), _complete_at(at, timeframe, holidays) <= latest)
        found[symbol, at.to_pydatetime()] = (*_candle(group), *more)
    return found


def _candle(group: pd.DataFrame) -> tuple[Any, ...]:
    volume = sum(group["volume"], Decimal(0))
    vwap = trades = None
    if group["vwap"].notna().all() and volume:
        vwap = sum((v * w for v, w in zip(group["volume"], group["vwap"], strict=True)), Decimal(0))
        vwap /= volume
    if group["trades"].notna().all():
        trades = int(group["trades"].sum())
    prices = (group["open"].iloc[0], max(group["high"]), min(group["low"]), group["close"].iloc[-1])
    return (*prices, volume, vwap, trades, len(group))


def _same(wanted: Any, got: Any) -> bool:
    if wanted is None or got is None:
        return wanted is got
    *numbers, vwap, trades, bars, session, complete = wanted
    *got_numbers, got_vwap, got_trades, got_bars, got_session, got_complete = got
    same_vwap = vwap == got_vwap or (
        # A quotient has no last digit: the database gives at least 16.
        vwap is not None and got_vwap is not None and abs(vwap - got_vwap) < Decimal("1e-12")
    )
    same_rest = (trades, bars, session, complete) == (
        got_trades,
        got_bars,
        got_session,
        got_complete,
    )
    return numbers == got_numbers and same_rest and same_vwap


@cache
def session_at(moment: pd.Timestamp, holidays: frozenset[str] = frozenset()) -> str:
    """pre, regular, after or closed."""
    day = moment.tz_convert(NEW_YORK).tz_localize(None).normalize()
    if day not in _schedule().index or str(day.date()) in holidays:
        return "closed"
    opens: Column = _schedule().at[day, "open"]
    closes: Column = _schedule().at[day, "close"]
    first = (day + pd.Timedelta(hours=4)).tz_localize(NEW_YORK)
    edges = (first, opens, closes, closes + pd.Timedelta(hours=4))
    return ("closed", "pre", "regular", "after", "closed")[sum(moment >= edge for edge in edges)]


@cache
def _session(start: pd.Timestamp, timeframe: str, holidays: frozenset[str]) -> str | None:
    if timeframe in REGULAR:
        return "regular"
    end = _end(start, timeframe)
    steps = pd.date_range(start, end, freq="5min", inclusive="left")
    sessions = {session_at(step, holidays) for step in steps}
    return sessions.pop() if len(sessions) == 1 else None


def _end(start: pd.Timestamp, timeframe: str) -> pd.Timestamp:
    local = start.tz_convert(NEW_YORK).tz_localize(None)
    if timeframe == "monthly":
        end = local + pd.DateOffset(months=1)
    elif timeframe in ("daily", "weekly"):
        end = local + pd.DateOffset(days=1 if timeframe == "daily" else 7)
    elif timeframe == "4hour":
        end = local + pd.Timedelta(hours=4)
    else:
        return start + pd.Timedelta(timeframe.replace("1hour", "1h"))
    return end.tz_localize(NEW_YORK).tz_convert("UTC")


@cache
def _complete_at(start: pd.Timestamp, timeframe: str, holidays: frozenset[str]) -> pd.Timestamp:
    end = _end(start, timeframe)
    if timeframe not in REGULAR:
        return end
    schedule = _schedule()
    local = start.tz_convert(NEW_YORK).tz_localize(None)
    sessions = schedule[local : end.tz_convert(NEW_YORK).tz_localize(None) - pd.Timedelta(1)]
    closes = sessions.loc[~sessions.index.astype(str).isin(holidays), "close"]
    return end if closes.empty else closes.iloc[-1]


def _starts(ts: Column, timeframe: str) -> Column:
    if timeframe in ("5min", "15min", "30min", "1hour"):
        return ts.dt.floor(timeframe.replace("1hour", "1h"))
    local = ts.dt.tz_convert(NEW_YORK).dt.tz_localize(None)
    if timeframe == "4hour":
        local = local.dt.floor("4h")
    elif timeframe == "daily":
        local = local.dt.normalize()
    elif timeframe == "weekly":
        local = local.dt.normalize() - pd.to_timedelta(local.dt.day_of_week, unit="D")
    else:
        local = local.dt.to_period("M").dt.start_time
    return local.dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")


def _in_session(ts: Column, holidays: frozenset[str]) -> Column:
    days = ts.dt.tz_convert(NEW_YORK).dt.tz_localize(None).dt.normalize()
    schedule = _schedule()
    opens, closes = days.map(schedule["open"]), days.map(schedule["close"])
    return (ts >= opens) & (ts < closes) & ~days.astype(str).isin(holidays)


@cache
def _schedule() -> pd.DataFrame:
    calendar = exchange_calendars.get_calendar("XNYS", start="1990-01-01", end="2040-12-31")
    return pd.DataFrame(calendar.schedule)
