"""Asking patterns: live about the windows of many symbols, or about one symbol's whole history.

Both ask the same functions for the same windows, so both find the same. SQL patterns are passed over
here: the database asks them.
"""

import logging
import os
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
SERIES_BLOCK = 2**16
"""Candles that are judged at once by patterns that look at a series, not at windows."""
DIRECTIONS: dict[int, Direction] = {1: "long", -1: "short", 0: "neutral"}
DECIMALS = 6
"""Strength and details are rounded to as many, like prices."""


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
        numbers = [_numbers(values) for values in self.details.values()]
        names = tuple(self.details)
        rows = zip(*numbers, strict=True) if names else ((),) * len(self.at)
        return map(
            Hit,
            repeat(self.pattern),
            self.at.tolist(),
            map(DIRECTIONS.__getitem__, self.direction.tolist()),
            self.strength.tolist(),
            (dict(zip(names, row, strict=True)) for row in rows),
        )


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
    by_length = list(_by_length(chosen))
    padded, origin = _padded(candles, begins, max((length for length, _ in by_length), default=1))
    judged = np.where(origin >= 0, wanted[origin], False)
    works = [
        work for length, several in by_length for work in _works(several, padded, length, judged)
    ]
    # numpy and TA-Lib let other threads compute meanwhile.
    with ThreadPoolExecutor(os.cpu_count() if len(padded) > SERIES_BLOCK else 1) as pool:
        for found in pool.map(lambda work: work.do(origin, failures), works):
            yield from found


class _Work(NamedTuple):
    """A stretch of a series, and the patterns that are asked about it."""

    asked: Sequence[tuple[PythonPattern, Function | SeriesFunction, Parameters]]
    candles: Candles
    """Windows, or a series."""
    judged: slice
    """Which candles of the whole series are judged."""
    wanted: Bools

    def do(self, origin: NDArray[np.intp], failures: Failures) -> list[Hits]:
        """What is found. origin: which candle each one of the series with gaps is."""
        asked = (_ask(*each, self.candles, failures, self.wanted) for each in self.asked)
        return [hits._replace(at=origin[self.judged][hits.at]) for hits in asked if hits]


def _works(
    several: Sequence[tuple[PythonPattern, Parameters]], padded: Candles, length: int, wanted: Bools
) -> Iterator[_Work]:
    """What there is to do for patterns of one length."""
    of_windows = [(p, p.function, parameters) for p, parameters in several if p.series is None]
    of_series = [(p, p.series, parameters) for p, parameters in several if p.series is not None]
    if of_windows:
        block = max(BLOCK // length, SMALLEST_BLOCK)
        for judged, stretch in _stretches(padded, length, wanted, block):
            yield _Work(of_windows, _windows(stretch, length), judged, wanted[judged])
    if of_series:
        for judged, stretch in _stretches(padded, length, wanted, SERIES_BLOCK):
            yield _Work(of_series, stretch, judged, wanted[judged])


def _stretches(
    padded: Candles, length: int, wanted: Bools, block: int
) -> Iterator[tuple[slice, Candles]]:
    """Parts of a series, of so many windows, in which there is something to judge: where each one's
    judged candles are, and these with the candles that their windows hold before them."""
    for first in range(length - 1, len(padded), block):
        judged = slice(first, min(first + block, len(padded)))
        if wanted[judged].any():
            yield judged, _stretch(padded, slice(first - length + 1, judged.stop))


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


def _padded(
    candles: Candles, begins: Sequence[int], length: int
) -> tuple[Candles, NDArray[np.intp]]:
    """The series with length - 1 missing candles before each symbol's first, so that no window holds
    candles of two symbols; and which candle each of these is, -1 for a missing one."""
    number = np.arange(len(candles))
    symbol = np.searchsorted(np.asarray(begins), number, side="right")
    places = number + symbol * (length - 1)
    size = len(candles) + len(begins) * (length - 1)
    origin = np.full(size, -1)
    origin[places] = number

    def with_gaps(column: Floats) -> Floats:
        padded: Floats = np.take(np.append(column, np.nan), origin, mode="wrap")  # -1 is the last
        return padded

    return _read_only(
        candles.with_columns(
            map(with_gaps, candles.columns),
            with_gaps(candles.opens_at),
            with_gaps(candles.closes_at),
        )
    ), origin


def _stretch(padded: Candles, part: slice) -> Candles:
    columns = (column[part] for column in padded.columns)
    return padded.with_columns(columns, padded.opens_at[part], padded.closes_at[part])


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
    try:
        with np.errstate(all="ignore"):  # what comes of missing candles is no news
            found = function(candles, parameters)
        if found is None:
            return None
        windows = candles.opens_at.shape if wanted is None else wanted.shape
        hits = _checked(pattern.name, found, windows, wanted)
    except Exception as error:  # a broken pattern must not stop the others
        failures.report(pattern.name, candles.timeframe, error)
        return None
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
        at = picks = (where if wanted is None else where & wanted).nonzero()[0]
        told_of = windows
    else:
        places = np.asarray(found.at)
        _check_places(places, windows[0] if windows else 1)
        told_of = places.shape
        picks = np.arange(len(places)) if wanted is None else wanted[places].nonzero()[0]
        at = places[picks]

    def told(values: object) -> Floats:
        numbers: Floats = _picked(values, told_of, picks).astype(np.float64)
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
    if len(at) and (at[0] < 0 or at[-1] >= windows or (np.diff(at) <= 0).any()):
        raise ValueError(f"at does not ascend from 0 to at most {windows - 1}")


def _picked(values: object, shape: tuple[int, ...], picks: NDArray[np.intp]) -> NDArray[Any]:
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
