"""Patterns: one file each, found by being in this folder (or in the operator's own).

A pattern is a function over a window of candles that ends with the one just completed:

    @pattern("Doji", candles=1)
    def doji(window: Window) -> Signal | None:
        ...

It returns a Signal when the last candle completes the pattern, else None. It sees completed candles
only, and must depend on nothing else: the same candles give the same signal, live or years later.
"""

import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickstock.errors import TickstockError
from tickstock.timeframes import TIMEFRAMES

log = logging.getLogger(__name__)

Direction = Literal["long", "short", "neutral"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """A symbol's latest candles, oldest first; the last one is the candle being judged.

    There may be fewer than the pattern asked for, at the beginning of a symbol's history. The
    arrays are read-only.
    """

    symbol: str
    timeframe: str
    ts: Floats
    """Starts of the candles, seconds since 1970 (UTC)."""
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.ts)

    def last(self, candles: int) -> "Window":
        """The same window with at most that many of the latest candles."""
        if candles >= len(self):
            return self
        columns = (self.ts, self.open, self.high, self.low, self.close, self.volume)
        return Window(self.symbol, self.timeframe, *(column[-candles:] for column in columns))


class Signal(NamedTuple):
    direction: Direction
    details: dict[str, float]
    """The numbers that made the pattern, for the event's `details`."""


@dataclass(frozen=True)
class Pattern:
    name: str
    candles: int
    """How many candles it looks at, the judged one included."""
    timeframes: tuple[str, ...]
    function: Callable[[Window], Signal | None]

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().split("\n")[0]


def pattern(
    name: str, *, candles: int, timeframes: Sequence[str] = TIMEFRAMES
) -> Callable[[Callable[[Window], Signal | None]], Pattern]:
    """Declare a function to be the pattern of that name.

    ValueError for an unknown timeframe, and for a pattern that looks at no candle.
    """
    if candles < 1:
        raise ValueError(f"pattern {name}: candles is {candles}, it must be 1 or more")
    if unknown := set(timeframes) - set(TIMEFRAMES):
        raise ValueError(f"pattern {name}: no timeframe {', '.join(sorted(unknown))}")

    def declare(function: Callable[[Window], Signal | None]) -> Pattern:
        return Pattern(name, candles, tuple(timeframes), function)

    return declare


def discover(folder: Path | None = None) -> list[Pattern]:
    """All patterns: those of this package, and those in the operator's folder of Python files.

    A file that can't be imported is reported and left out. Two patterns of one name: TickstockError.
    """
    found: dict[str, tuple[Pattern, str | None]] = {}
    for module in (*_own_modules(), *_modules_in(folder)):
        for item in vars(module).values():
            if not isinstance(item, Pattern):
                continue
            known, file = found.setdefault(item.name, (item, module.__file__))
            if known is not item:
                raise TickstockError(
                    f"two patterns are named {item.name}, in {file} and in {module.__file__}: rename one"
                )
    return [found[name][0] for name in sorted(found)]


def _own_modules() -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(__path__):
        yield importlib.import_module(f"{__name__}.{info.name}")


def _modules_in(folder: Path | None) -> Iterator[ModuleType]:
    if folder is None:
        return
    if not folder.is_dir():
        raise TickstockError(f"no folder {folder}: create it, or correct --patterns")
    for path in sorted(folder.glob("[!_]*.py")):
        module = _import_file(path)
        if module is not None:
            yield module


def _import_file(path: Path) -> ModuleType | None:
    name = f"tickstock_user_patterns.{path.stem}"
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for one, look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        log.error("pattern file %s left out: %s: %s", path, type(error).__name__, error)
        return None
    return module
