"""coverage() and missing_minutes(), against an oracle that looks at every minute by itself."""

from collections.abc import Iterator
from datetime import date, datetime, time
from itertools import groupby
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.exchange import DAY, MINUTE, NEW_YORK, new_york, schedule, sessions_of
from tests.properties import on_a_database

SYMBOLS = ["A", "ZZ"]
# A holiday and the half day after it, both changes of the clocks, a weekend, an ordinary day.
DAYS = [date(2025, 3, 7), date(2025, 3, 10), date(2025, 11, 3), date(2025, 11, 27)]
DAYS += [date(2025, 11, 28), date(2025, 11, 29), date(2025, 12, 1)]
# At and around the edges of sessions, half days' included.
TIMES = [time(3, 58), time(9, 25), time(12, 50), time(15, 57), time(16, 57), time(19, 55)]

Minute = tuple[str, datetime]


class Change(NamedTuple):
    """Something that happens to some minutes of a symbol."""

    kind: str
    symbol: str
    starts: datetime
    minutes: int
    every: int

    def each(self) -> list[Minute]:
        return [(self.symbol, self.starts + n * MINUTE) for n in range(0, self.minutes, self.every)]


class Market:
    """What coverage() has to count, in sets of minutes."""

    def __init__(self) -> None:
        self.bars: set[Minute] = set()
        self.corrected: set[Minute] = set()
        self.empty: set[Minute] = set()

    def take(self, conn: Connection[TupleRow], change: Change) -> None:
        keys = change.each()
        asked = (change.symbol, [ts for _, ts in keys])
        if change.kind == "write":
            conn.execute(
                "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
                " select %s, ts, 1, 1, 1, 1, 1 from unnest(%s::timestamptz[]) ts"
                " on conflict do nothing",
                asked,
            )
            self.bars |= set(keys)
        elif change.kind == "correct":
            conn.execute(
                "update ohlcv_1min set volume = volume + 1 where symbol = %s and ts = any (%s)",
                asked,
            )
            self.corrected |= self.bars & set(keys)
        elif change.kind == "delete":
            conn.execute("delete from ohlcv_1min where symbol = %s and ts = any (%s)", asked)
            self.bars -= set(keys)
        else:
            last = keys[-1][1]
            told = SYMBOLS if change.kind.endswith("all") else [change.symbol]
            if change.kind.startswith("live"):
                # It covers neither its first minutes nor its last ones.
                conn.execute(
                    "insert into feed_stretches (feed, channel, symbols, starts, latest, closed_at)"
                    " values ('test', 'AM', %s, %s, %s, now())",
                    (
                        None if told is SYMBOLS else [change.symbol, "Q"],
                        change.starts - 16 * MINUTE,
                        last + 16 * MINUTE,
                    ),
                )
            else:
                # Not on minutes: what counts are the minutes that begin in it.
                conn.execute(
                    "insert into backfills (symbol, starts, ends, source) values (%s, %s, %s, 'REST')"
                    " on conflict do nothing",
                    (
                        "*" if told is SYMBOLS else change.symbol,
                        change.starts - MINUTE / 2,
                        last + MINUTE / 3,
                    ),
                )
            steps = range((last - change.starts) // MINUTE + 1)
            self.empty |= {(symbol, change.starts + n * MINUTE) for symbol in told for n in steps}

    def sessions(self, days: list[date]) -> Iterator[tuple[date, str, list[datetime]]]:
        """Each session with its minutes up to the feed's clock."""
        if not self.bars:
            return
        latest = max(ts for _, ts in self.bars)
        for day in days:
            for name, starts, ends in (
                sessions_of(day, schedule()[day]) if day in schedule() else ()
            ):
                count = (ends - starts) // MINUTE
                minutes = [starts + n * MINUTE for n in range(count)]
                if minutes := [minute for minute in minutes if minute <= latest]:
                    yield day, name, minutes

    def coverage(self, symbol: str, days: list[date]) -> list[tuple[Any, ...]]:
        lines = []
        for day, name, minutes in self.sessions(days):
            keys = {(symbol, minute) for minute in minutes}
            empty = (keys & self.empty) - self.bars
            numbers = (keys, keys & self.bars, keys & self.bars & self.corrected, empty)
            missing = keys - self.bars - self.empty
            lines.append((symbol, day, name, *map(len, numbers), len(missing)))
        return lines

    def missing(self, symbol: str, days: list[date]) -> list[tuple[Any, ...]]:
        lines = []
        for day, name, minutes in self.sessions(days):
            there = [(symbol, minute) in self.bars | self.empty for minute in minutes]
            for is_there, group in groupby(zip(there, minutes, strict=True), lambda each: each[0]):
                if not is_there:
                    found = [minute for _, minute in group]
                    ends = found[-1] + MINUTE
                    lines.append((symbol, day, name, found[0], ends, len(found)))
        return lines


changes = st.builds(
    Change,
    st.sampled_from(["write"] * 4 + ["correct", "delete", "told", "told all", "live", "live all"]),
    st.sampled_from(SYMBOLS),
    st.builds(new_york, st.sampled_from(DAYS), st.sampled_from(TIMES)),
    st.integers(1, 60),
    st.sampled_from([1, 2, 7]),
)


@on_a_database(examples=15)
@given(st.lists(changes, min_size=3, max_size=15), st.tuples(*[st.sampled_from(DAYS)] * 2))
def test_counts_equal_the_oracle(
    conn: Connection[TupleRow], writing: list[Change], bounds: tuple[date, date]
) -> None:
    conn.execute("truncate ohlcv_1min, ohlcv_revisions, backfills")
    conn.execute("delete from feed_stretches")
    market = Market()
    for change in writing:
        market.take(conn, change)
    first, last = min(bounds), max(bounds)
    days = [first + n * DAY for n in range((last - first).days + 1)]
    for symbol in SYMBOLS:
        asked = (symbol, first, last)
        got = conn.execute("select * from coverage(%s, %s, %s)", asked).fetchall()
        assert got == market.coverage(symbol, days)
        got = conn.execute("select * from missing_minutes(%s, %s, %s)", asked).fetchall()
        assert got == market.missing(symbol, days)
    present = [s for s in SYMBOLS if any(line[4] for line in market.coverage(s, days))]
    got = conn.execute("select * from coverage(null, %s, %s)", (first, last)).fetchall()
    # Bars between two sessions are bars of the days asked for, too.
    assert [line for line in got if line[0] in present] == [
        line for symbol in present for line in market.coverage(symbol, days)
    ]


def test_without_days_it_is_the_feed_s_present_day(conn: Connection[TupleRow]) -> None:
    market = Market()
    for day in (date(2025, 11, 26), date(2025, 11, 28)):
        market.take(conn, Change("write", "A", new_york(day, time(9, 31)), 60, 7))
    wanted = market.coverage("A", [date(2025, 11, 28)])
    assert [line[2] for line in wanted] == ["pre", "regular"]
    assert conn.execute("select * from coverage()").fetchall() == wanted
    assert conn.execute("select * from coverage('A', '2025-11-28')").fetchall() == wanted
    missing = conn.execute("select * from missing_minutes('A')").fetchall()
    assert missing == market.missing("A", [date(2025, 11, 28)]) != []


def test_days_before_dropped_bars_are_not_missing(conn: Connection[TupleRow]) -> None:
    days = [date(2025, 11, 3), date(2025, 11, 28)]
    market = Market()
    for day in days:
        market.take(conn, Change("write", "A", new_york(day, time(9, 31)), 60, 7))
    conn.execute("call drop_bars('2025-11-14')")
    rows = conn.execute("select * from coverage('A', '2025-11-01', '2025-11-28')").fetchall()
    [(since,)] = conn.execute("select tickstock.bars_since()").fetchall()
    first = since.astimezone(NEW_YORK).date() + DAY
    kept = [first + n * DAY for n in range((days[1] - first).days + 1)]
    assert rows == market.coverage("A", kept) != []


def test_days_the_wrong_way_round_are_told(conn: Connection[TupleRow]) -> None:
    for function in ("coverage", "missing_minutes"):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            conn.execute(f"select * from {function}('A', '2025-11-28', '2025-11-24')")
        assert "from 2025-11-28 to 2025-11-24" in str(caught.value)
        assert "the earlier one first" in str(caught.value)


def test_a_day_that_the_feed_has_not_come_to_is_told(conn: Connection[TupleRow]) -> None:
    Market().take(conn, Change("write", "A", new_york(date(2025, 11, 28), time(9, 31)), 60, 7))
    for function in ("coverage", "missing_minutes"):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            conn.execute(f"select * from {function}('A', '2025-11-29')".encode())
        assert "from 2025-11-29 on? The feed has come to 2025-11-28 only" in str(caught.value)


def test_minutes_are_missing_of_a_symbol(conn: Connection[TupleRow]) -> None:
    Market().take(conn, Change("write", "A", new_york(date(2025, 11, 28), time(9, 31)), 60, 7))
    for days in ("", ", '2025-11-28'"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="of which symbol"):
            conn.execute(f"select * from missing_minutes(null{days})".encode())
