"""What a pattern is: a function that judges the last candle of many windows at once.

Time is axis 0. An array of candles is (length, windows), oldest first, and `[-1]` is the row of the
candles being judged; the same code does for a single window, (length,). Live, the windows are those
of many symbols; in a scan of history they are all windows of one symbol.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickstock.timeframes import TIMEFRAMES

Direction = Literal["long", "short", "neutral"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LONGEST = 2_000
"""Most candles a pattern may look at."""
LONGEST_NAME = 100
"""Characters: names go by NOTIFY, which takes no more than 8,000 bytes."""


@dataclass(frozen=True)
class Candles:
    """Windows of completed candles of one timeframe, oldest first.

    Arrays are (length, windows) and read-only; prices are dollars. Where a symbol's history does not
    reach so far back, everything is NaN; what is compared with NaN is false. The judged candle is
    always there.
    """

    timeframe: str
    ts: Floats
    """Starts of the candles, seconds since 1970 (UTC)."""
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    opens_at: Floats
    """(windows,): when the regular session of the judged candle's New York day opens, seconds since
    1970 (UTC); NaN on a day without one."""
    closes_at: Floats
    """(windows,): when it closes."""

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def columns(self) -> tuple[Floats, ...]:
        return (self.ts, self.open, self.high, self.low, self.close, self.volume)

    def last(self, candles: int) -> "Candles":
        """The same windows with at most that many of the latest candles."""
        if candles >= len(self):
            return self
        columns = (column[len(self) - candles :] for column in self.columns)
        return self.with_columns(columns)

    def with_columns(
        self,
        columns: Iterable[Floats],
        opens_at: Floats | None = None,
        closes_at: Floats | None = None,
    ) -> "Candles":
        """Other candles, ts to volume; the same sessions unless they are given."""
        ts, open_, high, low, close, volume = columns
        return Candles(
            self.timeframe,
            *(ts, open_, high, low, close, volume),
            opens_at=self.opens_at if opens_at is None else opens_at,
            closes_at=self.closes_at if closes_at is None else closes_at,
        )

    def fitted(self, candles: int) -> "Candles":
        """The same windows with exactly that many candles: cut, or filled up with NaN."""
        missing = candles - len(self)
        if missing <= 0:
            return self.last(candles)
        nothing = np.full((missing, *self.ts.shape[1:]), np.nan)
        columns = (np.concatenate((nothing, column)) for column in self.columns)
        return self.with_columns(columns)

    @cached_property
    def in_session(self) -> Bools:
        """Which candles begin within the regular session of the judged candle's day."""
        return (self.ts >= self.opens_at) & (self.ts < self.closes_at)

    @cached_property
    def end_to_end(self) -> tuple[Floats, ...]:
        """Open, high, low and close of one window after the other, (windows * length,), in whole
        millionths of a dollar, of which sums are exact; 0 where a candle is missing."""
        prices = (self.open, self.high, self.low, self.close)
        return tuple(np.nan_to_num(np.rint(column * 1e6), nan=0.0).T.ravel() for column in prices)


class Found(NamedTuple):
    """What a pattern says about each window. Arrays are (windows,)."""

    where: Bools
    """Whether the judged candle completes the pattern."""
    direction: NDArray[np.int8] | int
    """1 long, -1 short, 0 neutral; one number if it is the same for all."""
    strength: Floats
    """From 0 to 1; what it measures is up to the pattern. Only read where the pattern is."""
    details: Mapping[str, Floats]
    """The numbers that made the pattern, for the event's `details`. Only read where the pattern is."""


class FoundAt(NamedTuple):
    """The same, told of the windows alone in which the pattern is. Arrays are (hits,)."""

    at: NDArray[np.intp]
    """Which windows, in ascending order."""
    direction: NDArray[np.int8] | int
    strength: Floats
    details: Mapping[str, Floats]


class Parameters(dict[str, float]):
    """A pattern's parameters by name: `p["max_body"]` or `p.max_body`."""

    def __getattr__(self, name: str) -> float:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no parameter {name}") from None

    def whole(self, name: str) -> int:
        """A parameter that counts something. ValueError unless it is a whole number from 1 on."""
        value = self[name]
        if value < 1 or value != int(value):
            raise ValueError(f"parameter {name} is {value:g}, it must be a whole number from 1 on")
        return int(value)


Function = Callable[[Candles, Parameters], Found | None]
SeriesFunction = Callable[[Candles, Parameters], FoundAt]
"""The same for all windows of a series, where that is cheaper and finds the same. It is given the
series, (length,), with each candle's own session, and tells about its windows, the first of which is
the series' beginning. The series may hold several symbols, with a window of missing candles between."""
Length = Callable[[Parameters, str], int]
"""How many candles a pattern looks at, of its parameters and the timeframe."""


@dataclass(frozen=True)
class Pattern:
    """What all kinds of patterns have in common."""

    name: str
    length: Length
    timeframes: tuple[str, ...]
    """Where it applies unless a setting says otherwise."""
    parameters: Parameters
    """With their defaults."""
    source: str
    description: str
    """A line that sums it up; formula, units, and what strength means."""

    @property
    def summary(self) -> str:
        return self.description.strip().split("\n")[0]

    def candles(self, parameters: Parameters, timeframe: str) -> int:
        """How many candles it looks at, the judged one included. ValueError if that makes no sense."""
        try:
            candles = self.length(parameters, timeframe)
        except ValueError:
            raise
        except (Exception, SystemExit) as error:  # somebody's own function
            problem = f"pattern {self.name}: its number of candles fails with {error!r}"
            raise ValueError(problem) from error
        # Parameters are floats, and so is what is computed of them: p.whole() counts.
        try:
            candles = index(candles)
        except TypeError:
            problem = f"pattern {self.name}: candles is {candles!r}, not a whole number"
            raise ValueError(problem) from None
        if not 1 <= candles <= LONGEST:
            raise ValueError(f"pattern {self.name}: candles is {candles}, not 1 to {LONGEST}")
        return candles

    def with_defaults(self, parameters: Mapping[str, float]) -> Parameters:
        """These parameters, and the defaults of the others. ValueError for one that it has not."""
        for name, value in parameters.items():
            if not isinstance(name, str):
                raise ValueError(f"pattern {self.name}: a parameter is named {name!r}, not a text")
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise ValueError(f"pattern {self.name} has no parameter {name} (it has: {known})")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"pattern {self.name}: {name} is {value!r}, not a number")
            if not math.isfinite(value):
                raise ValueError(f"pattern {self.name}: {name} is {value}, not a finite number")
        return Parameters({**self.parameters, **{k: float(v) for k, v in parameters.items()}})


@dataclass(frozen=True)
class PythonPattern(Pattern):
    function: Function
    series: SeriesFunction | None = None


@dataclass(frozen=True)
class SqlPattern(Pattern):
    query: str
    """A select over the relations `candles` and `parameters`, without a semicolon."""
    file: str


def pattern(
    name: str,
    *,
    candles: int | Length,
    timeframes: Sequence[str] = TIMEFRAMES,
    parameters: Mapping[str, float] | None = None,
    source: str = "",
    series: SeriesFunction | None = None,
) -> Callable[[Function], PythonPattern]:
    """Declare a function to be the pattern of that name.

    candles: how many it looks at, the judged one included, or a function of parameters and timeframe
    that tells. ValueError for a declaration that makes no sense: no name or timeframe, an unknown
    timeframe, a parameter that is no number, a number of candles that is none.
    """
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(
            f"a pattern is named {name!r}: 1 to {LONGEST_NAME} printable characters expected"
        )
    if not isinstance(source, str):
        raise ValueError(f"pattern {name}: its source is {source!r}, not a text")
    check_timeframes(name, timeframes)

    def declare(function: Function) -> PythonPattern:
        declared = PythonPattern(
            name=name,
            length=candles if callable(candles) else constant(candles),
            timeframes=tuple(timeframes),
            parameters=Parameters(dict.fromkeys(parameters or {}, 0.0)),
            source=source,
            description=function.__doc__ or "",
            function=function,
            series=series,
        )
        declared = replace(declared, parameters=declared.with_defaults(parameters or {}))
        for timeframe in timeframes:
            declared.candles(declared.parameters, timeframe)
        return declared

    return declare


def constant(candles: int) -> Length:
    """As many candles whatever the parameters and the timeframe."""
    return lambda _parameters, _timeframe: candles


def check_timeframes(name: str, timeframes: Sequence[str]) -> None:
    """ValueError for a timeframe that there is not, and for none."""
    if isinstance(timeframes, str):  # a sequence, too: of letters
        raise ValueError(
            f"pattern {name}: timeframes is {timeframes!r}, not a list: write [{timeframes!r}]"
        )
    if not timeframes:
        raise ValueError(f"pattern {name}: no timeframe is named")
    if unknown := set(timeframes) - set(TIMEFRAMES):
        raise ValueError(f"pattern {name}: no timeframe {', '.join(sorted(unknown))}")
