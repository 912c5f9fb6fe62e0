"""What the candles must be, worked out from the bars alone.

Days, weeks and months are pandas' business, sessions that of exchange_calendars, and the rest is
counted in Python: nothing here is shared with our SQL. What a half hour's bars come to is remembered,
since the tests ask again and again about bars of which few have changed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract import exchange
from tickstock.timeframes import TIMEFRAMES

COLUMNS = "symbol, ts, open, high, low, close, volume, vwap, trades, bars, session, complete"
LARGER = TIMEFRAMES[1:]
REGULAR = ("daily", "weekly", "monthly")
WITHIN_HALF_HOUR = {"5min": 5, "15min": 15, "30min": 30}

Key: TypeAlias = tuple[str, datetime]
"""Symbol and start (UTC) of a bar or candle."""
Session: TypeAlias = exchange.Hours


class Snapshot(NamedTuple):
    bars: list[TupleRow]
    candles: dict[str, list[TupleRow]]


def read_snapshot(conn: Connection[TupleRow]) -> Snapshot:
    """Bars and all larger candles as of one moment."""
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        return read_relations(conn)


def read_relations(conn: Connection[TupleRow]) -> Snapshot:
    """The same, within a transaction that is in repeatable read already."""

    def read(timeframe: str) -> list[TupleRow]:
        query = f"select {COLUMNS} from ohlcv_{timeframe} order by symbol, ts"
        return conn.execute(query).fetchall()

    return Snapshot(read("1min"), {timeframe: read(timeframe) for timeframe in LARGER})


class Calendar(NamedTuple):
    """The sessions of exchange_calendars, apart from days that a test has changed."""

    changed: frozenset[tuple[date, Session | None]] = frozenset()
    """Days with the session they have now; None for a holiday."""

    def with_day(self, day: date, session: Session | None) -> "Calendar":
        rest = {each for each in self.changed if each[0] != day}
        return Calendar(frozenset(rest | {(day, session)}))

    def session(self, day: date) -> Session | None:
        changed = dict(self.changed)
        return changed[day] if day in changed else exchange.schedule().get(day)


OFFICIAL = Calendar()


class Part(NamedTuple):
    """A candle in which turnover (the sum of vwap * volume) stands for vwap."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    turnover: Decimal | None
    trades: int | None
    bars: int


def differences(
    snapshot: Snapshot,
    calendar: Calendar = OFFICIAL,
    dropped: Sequence[TupleRow] = (),
    *,
    labelled: bool = True,
) -> list[str]:
    """Where bars and candles do not tell what they must, in words.

    `dropped`: bars (as in the snapshot) that are gone, while the candles made of them must stay.
    `labelled`: whether the session that a candle tells is compared, too.
    """
    latest = max((row[1] for row in snapshot.bars), default=None)
    wrong = [
        f"1min {row}"
        for row in snapshot.bars
        if row[9:] != (1, session_at(_half_hour(row[1]), calendar), True)
    ]
    parts = parts_of([*snapshot.bars, *dropped])
    for timeframe in LARGER:
        wanted = candles_of(parts, timeframe, latest, calendar)
        got = {(row[0], row[1]): row[2:] for row in snapshot.candles[timeframe]}
        if len(got) != len(snapshot.candles[timeframe]):
            wrong.append(f"{timeframe}: a candle is there twice")
        wrong.extend(
            f"{timeframe} {key}: wanted {wanted.get(key)}, got {got.get(key)}"
            for key in sorted(wanted.keys() | got.keys())
            if not _same(wanted.get(key), got.get(key), labelled=labelled)
        )
    return wrong


def _same(wanted: tuple[Any, ...] | None, got: tuple[Any, ...] | None, *, labelled: bool) -> bool:
    if wanted is None or got is None:
        return wanted is got
    vwap, got_vwap = wanted[5], got[5]
    same_vwap = vwap == got_vwap or (
        # A quotient has no last digit: the database gives at least 16.
        vwap is not None and got_vwap is not None and abs(vwap - got_vwap) < Decimal("1e-12")
    )
    same_session = wanted[8] == got[8] or not labelled
    return (
        same_vwap
        and same_session
        and (*wanted[:5], *wanted[6:8], wanted[9]) == (*got[:5], *got[6:8], got[9])
    )


Parts: TypeAlias = Mapping[str, Mapping[Key, Part]]


def parts_of(bars: Iterable[TupleRow]) -> Parts:
    """5min, 15min and 30min -> candles."""
    half_hours = defaultdict(list)
    for symbol, ts, *numbers in bars:
        half_hours[symbol, _half_hour(ts)].append((ts, *numbers[:7]))
    found: dict[str, dict[Key, Part]] = {timeframe: {} for timeframe in WITHIN_HALF_HOUR}
    for (symbol, _), rows in half_hours.items():
        for timeframe, start, part in _parts_of_half_hour(tuple(rows)):
            found[timeframe][symbol, start] = part
    return found


@lru_cache(100_000)
def _parts_of_half_hour(rows: tuple[tuple[Any, ...], ...]) -> list[tuple[str, datetime, Part]]:
    groups = defaultdict(list)
    for ts, op, high, low, close, volume, vwap, trades in sorted(rows):
        bar = Part(op, high, low, close, volume, None if vwap is None else vwap * volume, trades, 1)
        for timeframe, minutes in WITHIN_HALF_HOUR.items():
            groups[timeframe, ts - timedelta(minutes=ts.minute % minutes)].append(bar)
    return [(timeframe, start, _join(bars)) for (timeframe, start), bars in groups.items()]


def _join(parts: Sequence[Part]) -> Part:
    """One candle of several that follow each other; what one of them does not tell is unknown."""
    turnovers, trades = [p.turnover for p in parts], [p.trades for p in parts]
    return Part(
        open=parts[0].open,
        high=max(p.high for p in parts),
        low=min(p.low for p in parts),
        close=parts[-1].close,
        volume=sum((p.volume for p in parts), Decimal(0)),
        turnover=None if None in turnovers else sum(filter(None, turnovers), Decimal(0)),
        trades=None if None in trades else sum(filter(None, trades)),
        bars=sum(p.bars for p in parts),
    )


def candles_of(
    parts: Parts, timeframe: str, latest: datetime | None, calendar: Calendar
) -> dict[Key, tuple[Any, ...]]:
    """Candles by symbol and start: open … volume, vwap, trades, bars, session, complete."""
    if timeframe in WITHIN_HALF_HOUR:
        found = dict(parts[timeframe])
    else:
        groups = defaultdict(list)
        for (symbol, start), part in sorted(parts["30min"].items()):
            # A session begins and ends on a half hour.
            if timeframe not in REGULAR or session_at(start, calendar) == "regular":
                groups[symbol, start_of(start, timeframe)].append(part)
        found = {key: _join(group) for key, group in groups.items()}
    return {
        (symbol, start): (
            *part[:5],
            None if part.turnover is None or not part.volume else part.turnover / part.volume,
            part.trades,
            part.bars,
            _session(start, timeframe, calendar),
            latest is None or _complete_at(start, timeframe, calendar) <= latest,
        )
        for (symbol, start), part in found.items()
    }


def _half_hour(ts: datetime) -> datetime:
    return ts - timedelta(minutes=ts.minute % 30)


@cache
def start_of(moment: datetime, timeframe: str) -> datetime:
    """Start (UTC) of the candle that holds this moment, for timeframes of an hour and more."""
    if timeframe == "1hour":
        return moment - timedelta(minutes=moment.minute)
    local = _local(moment)
    if timeframe == "4hour":
        start = local.floor("4h")
    elif timeframe == "monthly":
        start = local.to_period("M").start_time
    else:
        start = local.normalize()
        start -= pd.Timedelta(days=start.day_of_week if timeframe == "weekly" else 0)
    return _utc(start)


def _end(start: datetime, timeframe: str) -> datetime:
    if timeframe in WITHIN_HALF_HOUR:
        return start + timedelta(minutes=WITHIN_HALF_HOUR[timeframe])
    if timeframe == "1hour":
        return start + timedelta(hours=1)
    if timeframe == "4hour":
        return _utc(_local(start) + pd.Timedelta(hours=4))
    if timeframe == "monthly":
        return _utc(_local(start) + pd.DateOffset(months=1))
    return _utc(_local(start) + pd.DateOffset(days=1 if timeframe == "daily" else 7))


def _local(moment: datetime) -> pd.Timestamp:
    """The clock in New York."""
    return pd.Timestamp(moment).tz_convert(exchange.NEW_YORK).tz_localize(None)


def _utc(local: pd.Timestamp) -> datetime:
    moment: datetime = local.tz_localize(exchange.NEW_YORK).tz_convert(UTC).to_pydatetime()
    return moment


@cache
def session_at(half_hour: datetime, calendar: Calendar = OFFICIAL) -> str:
    """pre, regular, after or closed."""
    day = _local(half_hour).date()
    session = calendar.session(day)
    if session is None:
        return "closed"
    for name, starts, ends in exchange.sessions_of(day, session):
        if starts <= half_hour < ends:
            return name
    return "closed"


@cache
def _session(start: datetime, timeframe: str, calendar: Calendar) -> str | None:
    if timeframe in REGULAR:
        return "regular"
    step, end = _half_hour(start), _end(start, timeframe)
    sessions = {session_at(step, calendar)}
    while (step := step + timedelta(minutes=30)) < end:
        sessions.add(session_at(step, calendar))
    return sessions.pop() if len(sessions) == 1 else None


@cache
def _complete_at(start: datetime, timeframe: str, calendar: Calendar) -> datetime:
    end = _end(start, timeframe)
    if timeframe not in REGULAR:
        return end
    sessions = map(calendar.session, _days(start, end))
    return max((session[1] for session in sessions if session), default=end)


def _days(start: datetime, end: datetime) -> Iterator[date]:
    day, last = _local(start).date(), _local(end).date()
    while day < last:
        yield day
        day += timedelta(days=1)
