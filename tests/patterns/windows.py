"""Candles for patterns: written as a person would, and random markets.

Prices of markets are whole cents, so that oracles can be exact.
"""

from collections.abc import Sequence
from datetime import date, datetime
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickstock.patterns import Candles, PythonPattern, discover
from tickstock.patterns.evaluate import Chosen, Failures, Hit, history, live

NEW_YORK = ZoneInfo("America/New_York")
MINUTES = {"1min": 1, "5min": 5, "15min": 15, "30min": 30, "1hour": 60}

PATTERNS = {p.name: p for p in discover() if isinstance(p, PythonPattern)}
OWN = sorted(name for name in PATTERNS if not name.startswith("CDL"))
TALIB = sorted(name for name in PATTERNS if name.startswith("CDL"))


class Candle(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: float = 100


def new_york(clock: str) -> float:
    """A time in New York, such as "2025-11-24 10:00", in seconds since 1970."""
    return datetime.fromisoformat(clock).replace(tzinfo=NEW_YORK).timestamp()


def session_of(ts: float) -> tuple[float, float]:
    """When the session of that moment's day opens and closes; every day of tests has a whole one."""
    return _session(datetime.fromtimestamp(ts, NEW_YORK).date())


@cache
def _session(day: date) -> tuple[float, float]:
    return new_york(f"{day} 09:30"), new_york(f"{day} 16:00")


def series(
    candles: Sequence[Candle], *, end: str = "2025-11-24 12:00", timeframe: str = "5min"
) -> Candles:
    """Candles in a row, (length,), the last of which begins at `end`, New York time."""
    width = 60.0 * MINUTES[timeframe]
    starts = [new_york(end) - width * back for back in reversed(range(len(candles)))]
    return of_columns(timeframe, np.array(starts), *np.array(candles, dtype=np.float64).T)


def of_columns(timeframe: str, ts: NDArray[np.float64], *columns: NDArray[np.float64]) -> Candles:
    """(length,), each candle with the session of its own day, as history() takes them."""
    sessions = np.array([session_of(each) for each in ts]).reshape(-1, 2)
    open_, high, low, close, volume = columns
    return Candles(
        timeframe,
        *(ts, open_, high, low, close, volume),
        opens_at=sessions[:, 0],
        closes_at=sessions[:, 1],
    )


def as_window(c: Candles) -> Candles:
    """The series as one window, (length, 1)."""
    columns = (column[:, np.newaxis] for column in c.columns)
    return c.with_columns(columns, c.opens_at[-1:], c.closes_at[-1:])


def chosen(name: str, timeframe: str = "5min", **parameters: float) -> Chosen:
    pattern = PATTERNS[name]
    given = pattern.with_defaults(parameters)
    return Chosen(pattern, given, pattern.candles(given, timeframe))


def judge(
    name: str,
    candles: Sequence[Candle],
    *,
    end: str = "2025-11-24 12:00",
    **parameters: float,
) -> Hit | None:
    """What the pattern finds in the last of these candles, which are all that there are."""
    failures = Failures()
    window = as_window(series(candles, end=end))
    hits = list(live([chosen(name, "5min", **parameters)], window, failures))
    assert failures == Failures(), "it failed"
    return hits[0] if hits else None


def judge_all(name: str, c: Candles, **parameters: float) -> dict[int, Hit]:
    """What the pattern finds in each candle of a series."""
    failures = Failures()
    hits = list(history([chosen(name, c.timeframe, **parameters)], c, failures))
    assert failures == Failures(), "it failed"
    found = {hit.at: hit for hit in hits}
    assert len(found) == len(hits)
    return found


class Market(NamedTuple):
    """A random market: prices in whole cents, (length, 4); volumes."""

    timeframe: str
    ts: NDArray[np.float64]
    prices: NDArray[np.int64]
    volumes: NDArray[np.int64]

    @property
    def candles(self) -> Candles:
        return of_columns(
            self.timeframe, self.ts, *(self.prices.T / 100), self.volumes.astype(np.float64)
        )


def random_market(seed: int, size: int, *, timeframe: str = "5min") -> Market:
    """Sessions in a row. Seeds differ in price, in how much moves, and in whether there are waves."""
    rng = np.random.default_rng(seed)
    step = int(rng.choice([1, 2, 5, 20]))
    level = int(rng.choice([300, 1000, 5000]))
    wave = rng.choice([0, 1, 1]) * np.sin(np.arange(size) / rng.uniform(1.5, 4)) * step * 6
    moves = rng.integers(-step, step + 1, size)
    if rng.random() < 0.3:
        moves[rng.random(size) < 0.4] = 0
    if rng.random() < 0.4:
        moves += rng.integers(-1, 2) * step // 2 * (np.sin(np.arange(size) / 30) > 0)
    close = np.maximum(level + np.cumsum(moves) + wave.astype(np.int64), 50)
    open_ = np.where(rng.random(size) < 0.7, np.concatenate((close[:1], close[:-1])), close - moves)
    open_ = np.maximum(open_, 50)
    shadows = np.minimum(rng.geometric(0.4, (2, size)) - 1, 9) * step
    high = np.maximum(open_, close) + shadows[0]
    low = np.maximum(np.minimum(open_, close) - shadows[1], 1)
    volumes = rng.choice([0, 50, 100, 100, 100, 150, 151, 300, 301, 900], size)
    around = 0 if seed % 3 == 0 else 2  # candles before the session, and after it
    a_day = 390 // MINUTES[timeframe] + 2 * around
    number = np.arange(size) + int(rng.integers(a_day))
    starts = [new_york(f"2025-11-{day:02d} 09:30") for day in (24, 25, 26, 28)]
    starts += [s + 86400 * 7 * week for week in range(1, 40) for s in starts[:4]]
    # Spring brings another clock; sessions are looked up by the day.
    starts = [session_of(s + 3600)[0] for s in starts]
    ts = np.array(starts)[number // a_day] + 60.0 * MINUTES[timeframe] * (number % a_day - around)
    return Market(timeframe, ts, np.stack((open_, high, low, close), axis=1), volumes)


@st.composite
def markets(draw: st.DrawFn, sizes: tuple[int, int] = (1, 260)) -> Market:
    timeframe = draw(st.sampled_from(["5min", "15min", "30min"]))
    return random_market(
        draw(st.integers(0, 2**32 - 1)), draw(st.integers(*sizes)), timeframe=timeframe
    )
