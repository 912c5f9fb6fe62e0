"""The calendar of the New York exchanges as exchange_calendars has it, in plain dates and times."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import TypeAlias
from zoneinfo import ZoneInfo

import exchange_calendars

NEW_YORK = ZoneInfo("America/New_York")
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
FIRST, LAST = date(1990, 1, 2), date(2040, 12, 31)
YEARS = range(2000, 2031)

Hours: TypeAlias = tuple[datetime, datetime]
"""Opening and close of a regular session."""


@cache
def schedule() -> dict[date, Hours]:
    calendar = exchange_calendars.get_calendar("XNYS", start="1990-01-01", end="2040-12-31")
    table = calendar.schedule
    return {
        day.date(): (opens.to_pydatetime(), closes.to_pydatetime())
        for day, opens, closes in zip(table.index, table["open"], table["close"], strict=True)
    }


def new_york(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, NEW_YORK).astimezone(UTC)


def sessions_of(day: date, hours: Hours) -> Iterator[tuple[str, datetime, datetime]]:
    opens, closes = hours
    yield "pre", new_york(day, time(4)), opens
    yield "regular", opens, closes
    yield "after", closes, closes + 4 * HOUR


def session_at(moment: datetime) -> str:
    day = moment.astimezone(NEW_YORK).date()
    if day in schedule():
        for name, starts, ends in sessions_of(day, schedule()[day]):
            if starts <= moment < ends:
                return name
    return "closed"


@cache
def half_days() -> list[date]:
    return [day for day, (opens, closes) in schedule().items() if closes - opens < 6.5 * HOUR]


@cache
def holidays() -> list[date]:
    days = (FIRST + n * DAY for n in range((LAST - FIRST).days + 1))
    return [day for day in days if day.weekday() < 5 and day not in schedule()]


@cache
def clock_changes() -> list[date]:
    """The days on which New York's clocks are put forward or back."""
    days = (date(YEARS[0], 1, 1) + n * DAY for n in range(366 * len(YEARS)))
    noons = ((day, new_york(day, time(12))) for day in days if day.year in YEARS)
    return [day for day, noon in noons if noon - new_york(day - DAY, time(12)) != DAY]
