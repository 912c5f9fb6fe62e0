"""Asking patterns: live about the windows of many symbols, or about one symbol's whole history.

Both ask the same functions for the same windows, so both find the same. SQL patterns are passed over
here: the database asks them.
"""

import logging
import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, repeat
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tickstock.patterns.definition import (
    Bools,
    Candles,
    Direction,
    Floats,
    Found,
    FoundAt,
    Function,
    Parameters,
    Pattern,
    PythonPattern,
    SeriesFunction,
)

log = logging.getLogger(__name__)

BLOCK = 2**18
"""Candles of a history that are judged at once, each counted in as many windows as it is in: what a
pattern computes on the way stays in the processor's cache."""
SMALLEST_BLOCK = 4_096
"""Windows."""
SHORT = 21
"""Candles: of patterns that look at no more."""
SERIES_BLOCK = 2**16
"""Candles that are judged at once by patterns that look at a series, not at windows."""
DIRECTIONS: dict[int, Direction] = {1: "long", -1: "short", 0: "neutral"}
DECIMALS = 6
"""Strength and details are rounded to as many, like prices."""
_Asked = tuple[PythonPattern, Function | SeriesFunction, Parameters]
Picks = NDArray[np.intp] | slice
"""Some of what was told."""


@dataclass(frozen=True)
class Chosen:
    """A pattern with the parameters it is to be asked with, on one timeframe."""

    pattern: Pattern
    parameters: Parameters
    candles: int
    """How many candles it looks at, with these."""


class Hit(NamedTuple):
    pattern: str
    at: int
    """Live: which window. History: which candle."""
    direction: Direction
    strength: float
    details: dict[str, float | None]
    """None where the number is not finite."""


class Hits(NamedTuple):
    """Many hits of one pattern, as columns: (hits,) each."""

    pattern: str
    at: NDArray[np.intp]
    """Live: which windows. History: which candles."""
    direction: NDArray[np.int8]
    """1 long, -1 short, 0 neutral."""
    strength: Floats
    details: dict[str, Floats]

    def rows(self) -> Iterator[Hit]:
        return map(
            Hit,
            repeat(self.pattern),
            self.at.tolist(),
            map(DIRECTIONS.__getitem__, self.direction.tolist()),
            self.strength.tolist(),
            self.told(),
        )

    def told(self) -> list[dict[str, float | None]]:
        """The details of each hit; None where a number is not finite."""
        if not self.details:
            return [{} for _ in self.at]
        names = tuple(self.details)
        numbers = [_numbers(values) for values in self.details.values()]
        return [dict(zip(names, row, strict=True)) for row in zip(*numbers, strict=True)]


@dataclass
class Failures:
    """Reports patterns that fail: each once at length, for it may fail thousands of times a minute."""

    _seen: set[str] = field(default_factory=set)

    def report(self, pattern: str, timeframe: str, error: Exception) -> None:
        first = pattern not in self._seen
        self._seen.add(pattern)
        log.log(
            logging.ERROR if first else logging.DEBUG,
            "pattern %s failed on %s candles (further failures at --verbose only): %s",
            *(pattern, timeframe, error),
            exc_info=error if first else None,
        )

    def failed(self, pattern: str, timeframe: str, error: Exception) -> None:
        """It has not answered at all."""
        self.report(pattern, timeframe, error)


class Asking(NamedTuple):
    """A pattern that has been asked, and has not answered yet."""

    pattern: str
    timeframe: str
    since: float
    """By the monotonic clock."""


ASKING: dict[int, Asking] = {}
"""By thread. A pattern can't be stopped safely; but it can be named: see tickstock.scan.watch."""


def live(chosen: Sequence[Chosen], candles: Candles, failures: Failures) -> Iterator[Hit]:
    """What the patterns find in the judged candle of each window; candles are (length, windows).

    A pattern that raises, or whose answer makes no sense, is reported, and finds nothing.
    """
    for hits in live_columns(chosen, candles, failures):
        yield from hits.rows()


def history(
    chosen: Sequence[Chosen],
    candles: Candles,
    failures: Failures,
    *,
    begins: Sequence[int] = (0,),
    since: int = 0,
    asked: Bools | None = None,
) -> Iterator[Hit]:
    """What the patterns find in each candle of one or more symbols' series, in no order.

    candles are (length,): one symbol's series after the other; opens_at and closes_at are those of each
    candle's day, (length,) as well. begins: where each symbol's series begins, from 0 on, ascending.
    since: candles before that index are not asked about; asked: (length,), those that are.
    To find what live() finds, each series must reach back before the first candle asked about as far
    as the patterns look, or to the symbol's beginning.
    """
    for hits in history_columns(chosen, candles, failures, begins=begins, since=since, asked=asked):
        yield from hits.rows()


def live_columns(chosen: Sequence[Chosen], candles: Candles, failures: Failures) -> Iterator[Hits]:
    """As live(), by pattern, as columns."""
    for length, several in _by_length(chosen):
        windows = _read_only(candles.fitted(length))
        for pattern, parameters in several:
            if hits := _ask(pattern, pattern.function, parameters, windows, failures):
                yield hits


def history_columns(
    chosen: Sequence[Chosen],
    candles: Candles,
    failures: Failures,
    *,
    begins: Sequence[int] = (0,),
    since: int = 0,
    asked: Bools | None = None,
) -> Iterator[Hits]:
    """As history(), by pattern and block of candles, as columns."""
    if len(candles) == 0:
        return
    wanted = np.arange(len(candles)) >= since
    if asked is not None:
        wanted = wanted & asked
    parts = [
        _Part(by_length, candles, begins, first, min(first + SERIES_BLOCK, len(candles)))
        for by_length in _short_and_long(chosen)
        for first in range(0, len(candles), SERIES_BLOCK)
        if wanted[first : first + SERIES_BLOCK].any()
    ]
    # In this thread where there is one block: the second Ctrl-C then ends a pattern that does not end.
    if len(candles) <= SERIES_BLOCK:
        for part in parts:
            yield from part.ask(wanted, failures)
        return
    # numpy and TA-Lib let other threads compute meanwhile.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda part: part.ask(wanted, failures), parts):
            yield from found


ByLength = Sequence[tuple[int, Sequence[tuple[PythonPattern, Parameters]]]]
"""Patterns by how many candles they look at, ascending."""


class _Part(NamedTuple):
    """Some candles of a history, and the patterns that are asked about them."""

    by_length: ByLength
    candles: Candles
    """The whole history."""
    begins: Sequence[int]
    first: int
    end: int

    def ask(self, wanted: Bools, failures: Failures) -> list[Hits]:
        """What is found in the candles that are wanted."""
        series, origin = self._with_gaps()
        judged = np.where(origin >= 0, wanted[origin], False)
        return [
            hits._replace(at=origin[ends][hits.at])
            for asked, shown, ends in self._shown(series, judged)
            for each in asked
            if (hits := _ask(*each, shown, failures, judged[ends]))
        ]

    @property
    def _gap(self) -> int:
        return self.by_length[-1][0] - 1

    def _with_gaps(self) -> tuple[Candles, NDArray[np.intp]]:
        """The candles and those that windows look back at, with as many missing ones before each symbol's
        first, so that no window holds candles of two symbols; and which candle each is, -1 for a
        missing one."""
        nth = bisect_right(self.begins, self.first)
        since = max(self.begins[nth - 1], self.first - self._gap)
        inside = self.begins[nth : bisect_left(self.begins, self.end)]
        number = np.arange(since, self.end)
        gaps = 1 + np.searchsorted(inside, number, side="right")
        places = number - self.first + self._gap * gaps
        size = self.end - self.first + self._gap * (1 + len(inside))

        def spread(column: Floats) -> Floats:
            there = np.full(size, np.nan)
            there[places] = column[since : self.end]
            there.flags.writeable = False
            return there

        origin = np.full(size, -1)
        origin[places] = number
        sessions = (spread(self.candles.opens_at), spread(self.candles.closes_at))
        return self.candles.with_columns(map(spread, self.candles.columns), *sessions), origin

    def _shown(
        self, series: Candles, judged: Bools
    ) -> Iterator[tuple[list[_Asked], Candles, slice]]:
        """What patterns are shown: windows, so many at once, or the series; and where these end."""
        for length, several in self.by_length:
            of_windows: list[_Asked] = [
                (p, p.function, parameters) for p, parameters in several if not p.series
            ]
            block = max(BLOCK // length, SMALLEST_BLOCK)
            for first in range(self._gap, len(series), block) if of_windows else ():
                ends = slice(first, first + block)
                if judged[ends].any():
                    stretch = _stretch(series, slice(first - length + 1, ends.stop))
                    yield of_windows, _windows(stretch, length), ends
            of_series: list[_Asked] = [
                (p, p.series, parameters) for p, parameters in several if p.series
            ]
            if of_series:
                yield (
                    of_series,
                    _stretch(series, slice(self._gap - length + 1, None)),
                    slice(self._gap, None),
                )


def _short_and_long(chosen: Sequence[Chosen]) -> Iterator[ByLength]:
    """Most look at few candles, and need no more missing ones than these."""
    for _, similar in groupby(_by_length(chosen), lambda each: each[0] > SHORT):
        yield list(similar)


def _by_length(
    chosen: Sequence[Chosen],
) -> Iterator[tuple[int, list[tuple[PythonPattern, Parameters]]]]:
    """Patterns that look at the same windows together: these are cut once."""
    by_length = sorted(chosen, key=lambda each: each.candles)
    for length, several in groupby(by_length, lambda each: each.candles):
        asked = [
            (each.pattern, each.parameters)
            for each in several
            if isinstance(each.pattern, PythonPattern)
        ]
        if asked:
            yield length, asked


def _stretch(series: Candles, part: slice) -> Candles:
    columns = (column[part] for column in series.columns)
    return series.with_columns(columns, series.opens_at[part], series.closes_at[part])


def _windows(stretch: Candles, length: int) -> Candles:
    """All windows of a series. Nothing is copied: row n is the series from its n-th candle on."""
    rows = (sliding_window_view(column, length).T for column in stretch.columns)
    return stretch.with_columns(
        rows, stretch.opens_at[length - 1 :], stretch.closes_at[length - 1 :]
    )


def _read_only(candles: Candles) -> Candles:
    def view(column: Floats) -> Floats:
        shared = column.view()
        shared.flags.writeable = False
        return shared

    return candles.with_columns(
        map(view, candles.columns), view(candles.opens_at), view(candles.closes_at)
    )


def _ask(
    pattern: PythonPattern,
    function: Function | SeriesFunction,
    parameters: Parameters,
    candles: Candles,
    failures: Failures,
    wanted: Bools | None = None,
) -> Hits | None:
    """Its hits among the windows wanted, all by default; None if it failed."""
    thread = threading.get_ident()
    ASKING[thread] = Asking(pattern.name, candles.timeframe, time.monotonic())
    try:
        with np.errstate(all="ignore"):  # what comes of missing candles is no news
            found = function(candles, parameters)
        if found is None:
            return None
        windows = candles.opens_at.shape if wanted is None else wanted.shape
        hits = _checked(pattern.name, found, windows, wanted)
    except Exception as error:  # a broken pattern must not stop the others
        failures.failed(pattern.name, candles.timeframe, error)
        return None
    except SystemExit as error:
        exits = RuntimeError(
            f"it called sys.exit({error.code!r}), which is not for a pattern to do"
        )
        failures.failed(pattern.name, candles.timeframe, exits.with_traceback(error.__traceback__))
        return None
    finally:
        del ASKING[thread]
    # One window's nonsense must not cost the others their hits: these would depend on what is beside.
    fine = (np.abs(hits.direction) <= 1) & (hits.strength >= 0) & (hits.strength <= 1)
    if fine.all():
        return hits
    worst = int(fine.argmin())
    problem = f"its direction is {hits.direction[worst]}, its strength {hits.strength[worst]}"
    failures.report(pattern.name, candles.timeframe, ValueError(problem))
    details = {name: values[fine] for name, values in hits.details.items()}
    return Hits(hits.pattern, hits.at[fine], hits.direction[fine], hits.strength[fine], details)


def _checked(
    name: str, found: Found | FoundAt, windows: tuple[int, ...], wanted: Bools | None
) -> Hits:
    """What was found. TypeError, ValueError for an answer that makes no sense."""
    if not isinstance(found, Found | FoundAt):
        raise TypeError(f"it returned {found!r}, which is neither Found nor None")
    if not isinstance(found.details, Mapping):
        raise TypeError(f"its details are {found.details!r}, not a mapping")
    directions = np.asarray(found.direction)
    if directions.dtype.kind != "i":
        raise TypeError(f"its direction is {found.direction!r}, not 1, -1 or 0")
    if isinstance(found, Found):
        where = np.asarray(found.where)
        if where.dtype != np.bool_ or where.shape != windows:
            raise ValueError(f"where is {where.dtype} {where.shape}, not bool {windows}")
        at = (where if wanted is None else where & wanted).nonzero()[0]
        told_of: tuple[int, ...] = windows
        picks: Picks = at
    else:
        at = np.asarray(found.at)
        _check_places(at, windows[0] if windows else 1)
        told_of, picks = at.shape, slice(None)
        if wanted is not None and not (asked := wanted[at]).all():
            picks = asked.nonzero()[0]
            at = at[picks]

    def told(values: object) -> Floats:
        numbers: Floats = _picked(values, told_of, picks).astype(np.float64, copy=False)
        rounded: Floats = np.round(numbers, DECIMALS) + 0.0  # no -0.0
        return rounded

    return Hits(
        name,
        at,
        _picked(directions, told_of, picks),
        told(found.strength),
        {_name(each): told(values) for each, values in found.details.items()},
    )


def _check_places(at: NDArray[np.intp], windows: int) -> None:
    """ValueError for what would be read as other windows than were meant, or as none."""
    if at.ndim != 1 or at.dtype.kind != "i":
        raise ValueError(f"at is {at.dtype} {at.shape}, not numbers of windows")
    if len(at) and (at[0] < 0 or at[-1] >= windows or (at[1:] <= at[:-1]).any()):
        raise ValueError(f"at does not ascend from 0 to at most {windows - 1}")


def _picked(values: object, shape: tuple[int, ...], picks: Picks) -> NDArray[Any]:
    of_all = np.asarray(values)
    return (of_all if of_all.shape == shape else np.broadcast_to(of_all, shape))[picks]


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.isprintable():
        raise TypeError(f"a detail is named {name!r}")
    return name


def _numbers(values: Floats) -> list[float | None]:
    if np.isfinite(values).all():
        numbers: list[float | None] = values.tolist()
        return numbers
    return [number if isfinite(number) else None for number in values.tolist()]
