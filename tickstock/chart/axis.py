"""The time axis of a chart: a place for each candle, none for the hours between them.

So neither nights nor holidays leave a gap, and a half day is as long as its candles.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby, pairwise
from typing import NamedTuple

from tickstock.chart.series import Candle

DAY_RANK = 3
_MINUTES = (240, 120, 60, 30, 15, 5, 1)


class Tick(NamedTuple):
    """A candle that begins something: a year, a month, …, a minute."""

    place: int
    rank: int
    """0 for a year; the larger the number, the shorter what begins. DAY_RANK for a day."""
    label: str


class Stretch(NamedTuple):
    """Neighbours of one kind, both ends included."""

    first: int
    last: int


def ranked(candles: Sequence[Candle]) -> list[Tick]:
    """A tick for each candle, from which those for the room at hand are to be chosen."""
    first, last = candles[0].ts, candles[-1].ts
    by_days = (
        all(each.ts.time() == first.time() for each in candles) and first.date() != last.date()
    )
    ticks = [Tick(0, DAY_RANK, _label(first, DAY_RANK, by_days))]
    for place, (before, candle) in enumerate(pairwise(candles), start=1):
        rank = _rank(before.ts, candle.ts)
        ticks.append(Tick(place, rank, _label(candle.ts, rank, by_days)))
    return ticks


def choose(ticks: Sequence[Tick], most: int) -> list[Tick]:
    """At most so many, well apart, the longest spans first; page.html does the same as one zooms.

    Once half of the room is taken, shorter spans stay out: 11:00, 11:15 and 11:30, not 11:21.
    """
    apart = len(ticks) / max(1, most)
    chosen: list[Tick] = []
    for _, rank in groupby(sorted(ticks, key=lambda tick: tick.rank), lambda tick: tick.rank):
        for tick in rank:
            if all(abs(tick.place - other.place) >= apart for other in chosen):
                chosen.append(tick)
        if 2 * len(chosen) >= most:
            break
    return sorted(chosen)[:most]


def outside_hours(candles: Sequence[Candle]) -> list[Stretch]:
    """Where the candles are not those of the regular session, but before or after it."""
    return _stretches([each.session in ("pre", "after", "closed") for each in candles])


def new_days(candles: Sequence[Candle]) -> list[int]:
    """The first candle of each New York day but the first; none where candles are days or longer."""
    starts = [n for n, (a, b) in enumerate(pairwise(candles), 1) if a.ts.date() != b.ts.date()]
    return starts if 2 * len(starts) < len(candles) else []


def _stretches(marked: Sequence[bool]) -> list[Stretch]:
    found: list[Stretch] = []
    for place, is_marked in enumerate(marked):
        if is_marked and found and found[-1].last == place - 1:
            found[-1] = Stretch(found[-1].first, place)
        elif is_marked:
            found.append(Stretch(place, place))
    return found


def _rank(before: datetime, ts: datetime) -> int:
    """How long a span this candle is the first of."""
    if before.date() == ts.date():
        minutes = [(each.hour * 60 + each.minute) for each in (before, ts)]
        for nth, span in enumerate(_MINUTES, DAY_RANK + 1):
            if minutes[0] // span != minutes[1] // span:
                return nth
        return DAY_RANK + len(_MINUTES)  # the hour that the clocks repeat
    if before.year != ts.year:
        return 0
    if before.month != ts.month:
        return 1
    return 2 if before.isocalendar()[:2] != ts.isocalendar()[:2] else DAY_RANK


def _label(ts: datetime, rank: int, by_days: bool) -> str:
    if rank > DAY_RANK:
        return f"{ts:%H:%M}"
    if by_days and rank <= 1:
        return f"{ts:%Y}" if rank == 0 else f"{ts:%b}"
    return f"{ts:%b} {ts.day}" + (f", {ts.year}" if rank == 0 else "")
