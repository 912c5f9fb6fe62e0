"""The calendar, against exchange_calendars; and what follows from its corrections."""

from collections import defaultdict
from datetime import UTC, date, datetime, time
from typing import NamedTuple, TypeAlias

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.exchange import (
    DAY,
    FIRST,
    HOUR,
    LAST,
    MINUTE,
    NEW_YORK,
    YEARS,
    Hours,
    clock_changes,
    half_days,
    holidays,
    new_york,
    schedule,
    session_at,
    sessions_of,
)
from tests.properties import on_a_database
from tickstock.db.connection import fetch_value


def test_the_oracle_knows_the_days_it_is_asked_for() -> None:
    assert len(clock_changes()) == 2 * len(YEARS)
    for year in YEARS:
        assert any(day.year == year for day in half_days()), year
        assert sum(day.year == year for day in holidays()) >= 8, year


def test_sessions_are_those_of_exchange_calendars(conn: Connection[TupleRow]) -> None:
    wanted = [
        (day, name, starts, ends, (ends - starts) // MINUTE)
        for day, hours in schedule().items()
        for name, starts, ends in sessions_of(day, hours)
    ]
    assert conn.execute("select * from sessions order by starts").fetchall() == wanted


def test_every_date_is_known(conn: Connection[TupleRow]) -> None:
    def kind(day: date) -> str:
        if day in schedule():
            return "half" if day in halves else "full"
        return "holiday" if day.weekday() < 5 else "weekend"

    halves = set(half_days())
    days = [FIRST + n * DAY for n in range((LAST - FIRST).days + 1)]
    wanted = [(day, kind(day), *schedule().get(day, (None, None))) for day in days]
    assert conn.execute("select * from market_days order by day").fetchall() == wanted


def test_trading_days_are_counted(conn: Connection[TupleRow]) -> None:
    asked = """
        select d::date, is_trading_day(d::date), next_trading_day(d::date), next_trading_day(d::date, 7),
          previous_trading_day(d::date), previous_trading_day(d::date, 7)
        from generate_series(timestamp '1990-01-02', '2040-12-31', '1 day') d
        where extract(year from d) in (1990, 2001, 2012, 2024, 2025, 2040)
    """
    days = sorted(schedule())
    for day, *answer in conn.execute(asked):
        before, after = [d for d in days if d < day], [d for d in days if d > day]
        assert answer == [
            day in schedule(),
            *(after[n - 1] if len(after) >= n else None for n in (1, 7)),
            *(before[-n] if len(before) >= n else None for n in (1, 7)),
        ], day


def test_the_calendar_does_not_guess(conn: Connection[TupleRow]) -> None:
    for question in (
        "is_trading_day('1989-12-29')",
        "is_trading_day('2041-01-02')",
        "next_trading_day('1989-12-29')",
        "next_trading_day('2040-12-31')",
        "next_trading_day('2025-11-26', 0)",
        "previous_trading_day('2041-01-02')",
        "previous_trading_day('1990-01-02')",
        "previous_trading_day('2025-11-26', -1)",
    ):
        assert fetch_value(conn, f"select {question}") is None, question
    for moment in ("1989-12-29 15:00+00", "2041-01-02 15:00+00"):
        told = conn.execute(
            "select session_of(ts), trading_day_of(ts) from (select %s::timestamptz as ts) m",
            (moment,),
        )
        assert told.fetchall() == [("closed", None)], "as docs/sql.md says"


def test_the_session_of_every_half_hour(conn: Connection[TupleRow]) -> None:
    special = {*half_days(), *holidays(), *clock_changes()}
    days = {day + n * DAY for day in special if day.year in YEARS for n in (-1, 0, 1)}
    midnights = (new_york(day, time(0)) for day in sorted(days))
    halves = [midnight + n * HOUR / 2 for midnight in midnights for n in range(51)]
    moments = [moment for half in halves for moment in (half - MINUTE, half)]
    assert len(moments) > 100_000
    asked = """
        select m.ts, session_of(m.ts), trading_day_of(m.ts), s.session
        from unnest(%s::timestamptz[]) with ordinality m (ts, n)
        left join sessions s on m.ts >= s.starts and m.ts < s.ends
          and s.day = (m.ts at time zone 'America/New_York')::date
        order by n
    """
    for moment, (_, session, day, joined) in zip(
        moments, conn.execute(asked, (moments,)), strict=True
    ):
        wanted = session_at(moment)
        assert session == wanted, moment
        assert (joined or "closed") == wanted, moment
        assert day == (None if wanted == "closed" else moment.astimezone(NEW_YORK).date()), moment


@on_a_database(examples=300)
@given(
    moment=st.datetimes(datetime(1985, 1, 1), datetime(2045, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
)
def test_the_session_of_any_moment(conn: Connection[TupleRow], moment: datetime) -> None:
    assert fetch_value(conn, "select session_of(%s)", moment) == session_at(moment)


SLOTS = st.integers(0, 47)
"""Half hours of a day in New York."""


@on_a_database(examples=60)
@given(
    day=st.dates(FIRST, LAST) | st.sampled_from(clock_changes() + half_days() + holidays()),
    slots=st.none() | st.tuples(SLOTS, SLOTS).filter(lambda each: each[0] < each[1]),
)
def test_sessions_follow_whatever_day_is_corrected(
    conn: Connection[TupleRow], day: date, slots: tuple[int, int] | None
) -> None:
    """Sundays, sessions at night, no session: session_of() tells what the calendar says."""
    midnight = datetime.combine(day, time(0))
    hours = [
        (midnight + n * HOUR / 2).replace(tzinfo=NEW_YORK).astimezone(UTC) for n in slots or ()
    ]
    moments = [new_york(day - DAY, time(0)) + n * HOUR / 2 for n in range(3 * 48 + 3)]
    with conn.transaction(force_rollback=True):
        conn.execute("delete from trading_days where day = %s", (day,))
        if hours and hours[0] < hours[1]:  # at night an hour of New York is missing, or comes twice
            conn.execute("insert into trading_days values (%s, %s, %s)", (day, *hours))
        told = conn.execute(
            """
            select m.ts, session_of(m.ts), coalesce(s.session, 'closed')
            from unnest(%s::timestamptz[]) m (ts)
            left join sessions s on m.ts >= s.starts and m.ts < s.ends
              and s.day = (m.ts at time zone 'America/New_York')::date
            """,
            (moments,),
        ).fetchall()
    assert [(ts, session) for ts, session, _ in told] == [(ts, wanted) for ts, _, wanted in told]


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("2025-11-29", "2025-11-29 09:35", "2025-11-29 16:00"),
        ("2025-11-29", "2025-11-29 09:30", "2025-11-29 15:59"),
        ("2025-11-29", "2025-11-29 16:00", "2025-11-29 09:30"),
        ("2025-11-29", "2025-11-28 09:30", "2025-11-28 16:00"),
        ("2025-11-29", "2025-11-29 09:30", "2025-11-30 00:00"),
    ],
)
def test_sessions_that_can_t_be_are_refused_in_words(
    conn: Connection[TupleRow], day: str, opens: str, closes: str
) -> None:
    hours = (f"{opens} America/New_York", f"{closes} America/New_York")
    for statement, values in (
        ("insert into trading_days values (%s, %s, %s)", (day, *hours)),
        (
            "update trading_days set day = %s, opens_at = %s, closes_at = %s where day = '2025-11-28'",
            (day, *hours),
        ),
    ):
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            conn.execute(statement.encode(), values)
        said = refused.value.diag
        wanted = f"a regular session of {day} from {opens}:00 to {closes}:00 in New York?"
        assert (said.message_primary or "").startswith(wanted)
        assert "at time zone 'America/New_York'" in (said.message_hint or "")


# Before the opening, at its edges, around the closes of half days, at the close and in the evening.
CLOCK = [
    time(*hour_minute)
    for hour_minute in [(9, 29), (9, 30), (12, 59), (13, 0), (15, 59), (16, 0), (16, 59), (19, 59)]
]


class Daily(NamedTuple):
    opens: int
    high: int
    low: int
    closes: int
    volume: int
    bars: int


Book: TypeAlias = dict[datetime, int]
"""Price of each bar by its minute."""


def bars_of(days: list[date]) -> Book:
    """Bars at these times of each day, each at a price of its own."""
    moments = [new_york(day, clock) for day in days for clock in CLOCK]
    return {moment: 1000 + (n * 37) % 501 for n, moment in enumerate(moments)}


def store(conn: Connection[TupleRow], book: Book) -> None:
    conn.execute("set tickstock.scan_queue = off")
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " select 'A', ts, price, price + 1, price - 1, price, price * 2"
        " from unnest(%s::timestamptz[], %s::integer[]) b (ts, price) order by ts",
        (list(book), list(book.values())),
    )


def daily_of(book: Book, hours: dict[date, Hours]) -> dict[date, Daily]:
    prices = defaultdict(list)
    for moment, price in sorted(book.items()):
        day = moment.astimezone(NEW_YORK).date()
        opens, closes = hours.get(day, (moment, moment))
        if opens <= moment < closes:
            prices[day].append(price)
    return {
        day: Daily(each[0], max(each) + 1, min(each) - 1, each[-1], 2 * sum(each), len(each))
        for day, each in prices.items()
    }


def check(conn: Connection[TupleRow], book: Book, hours: dict[date, Hours]) -> None:
    """Daily candles, sums of the larger ones, and the session of each bar, before and after a refresh."""
    wanted = daily_of(book, hours)
    sums: dict[tuple[str, date], int] = defaultdict(int)
    for day, daily in wanted.items():
        sums["weekly", day - day.weekday() * DAY] += daily.volume
        sums["monthly", day.replace(day=1)] += daily.volume
    regular = sum(daily.bars for daily in wanted.values())
    for refreshed in (False, True):
        if refreshed:
            conn.execute("call ohlcv_refresh()")
        got = conn.execute(
            "select (ts at time zone 'America/New_York')::date, open, high, low, close, volume, bars"
            " from ohlcv_daily"
        )
        assert {day: Daily(*map(int, numbers)) for day, *numbers in got} == wanted
        for timeframe in ("weekly", "monthly"):
            volumes = conn.execute(
                "select (ts at time zone 'America/New_York')::date, volume::integer"
                f" from ohlcv_{timeframe}"
            )
            assert {(timeframe, day): volume for day, volume in volumes} == {
                key: volume for key, volume in sums.items() if key[0] == timeframe
            }
        for timeframe in ("1min", "30min"):
            marked = f"select sum(bars) from ohlcv_{timeframe} where session = 'regular'"
            assert fetch_value(conn, marked) == regular


@pytest.mark.parametrize("year", YEARS)
def test_candles_follow_the_calendar_on_special_days(conn: Connection[TupleRow], year: int) -> None:
    """Every half day, holiday and change of the clocks of a year, and a correction of each."""
    hours = dict(schedule())
    halves = [day for day in half_days() if day.year == year]
    closed = [day for day in holidays() if day.year == year]
    # Sundays; the last session before and the first one after.
    changes = [day + n * DAY for day in clock_changes() if day.year == year for n in (-2, 0, 1)]
    full = [day for day in changes if day in hours and day not in halves]
    book = bars_of(sorted({*halves, *closed, *changes}))
    store(conn, book)
    check(conn, book, hours)
    early = [daily_of(book, hours)[day].bars for day in halves]
    assert set(early) == {2}  # 09:30 and 12:59

    # Half days become full ones, full ones half days, and holidays trade.
    hours |= {day: (hours[day][0], new_york(day, time(16))) for day in halves}
    hours |= {day: (hours[day][0], new_york(day, time(13))) for day in full}
    hours |= {day: (new_york(day, time(9, 30)), new_york(day, time(16))) for day in closed}
    conn.execute(
        "update trading_days set closes_at"
        " = (day + case when day = any (%s) then time '16:00' else '13:00' end)"
        "   at time zone 'America/New_York'"
        " where day = any (%s)",
        (halves, halves + full),
    )
    conn.execute(
        "insert into trading_days select day, (day + time '09:30') at time zone 'America/New_York',"
        "  (day + time '16:00') at time zone 'America/New_York' from unnest(%s::date[]) day",
        (closed,),
    )
    check(conn, book, hours)

    # And everything back.
    conn.execute("delete from trading_days where day = any (%s)", (closed,))
    conn.execute(
        "update trading_days set closes_at"
        " = (day + case when day = any (%s) then time '13:00' else '16:00' end)"
        "   at time zone 'America/New_York'"
        " where day = any (%s)",
        (halves, halves + full),
    )
    check(conn, book, schedule())
