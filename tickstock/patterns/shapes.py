"""Peaks and troughs of windows, for the patterns of chart shapes.

A shape is looked for as a top; its mirror image, the bottom, is the same on negated prices.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tickstock.patterns.arithmetic import at_least, sliding_max
from tickstock.patterns.definition import Bools, Candles, Floats, Found, FoundAt, Parameters

Places = NDArray[np.intp]
"""(windows,): which candle of each window, from 0 on."""


def window(p: Parameters, _timeframe: str) -> int:
    """How many candles a shape may span: the parameter of that name. ValueError if no peak fits."""
    candles, span = p.whole("window"), p.whole("span")
    if candles <= 2 * span:
        raise ValueError(f"parameter window is {candles}, it must be more than twice span ({span})")
    return candles


class Chart(NamedTuple):
    """(length, windows) each; or a series, (length,)."""

    high: Floats
    low: Floats
    close: Floats
    peak: Bools
    """Which candles are peaks, see peaks()."""

    def cut(self, windows: Places, length: int, span: int) -> "Chart":
        """Windows of a series."""
        high, low, close = (
            sliding_window_view(column, length)[windows].T
            for column in (self.high, self.low, self.close)
        )
        peak: Bools = sliding_window_view(self.peak, length)[windows].T
        # Of what lies beyond its edges a window knows nothing.
        peak[:span] = peak[-span:] = False
        return Chart(high, low, close, peak)

    def pick(self, windows: Places) -> "Chart":
        """Some of the windows."""
        return Chart(*(column[:, windows] for column in self))  # type: ignore[arg-type]


CANDIDATES = 1_024
"""Windows of a series that are looked at together: few enough for the processor's cache."""

Tops = Callable[[Chart, Parameters], tuple[Places, Floats, dict[str, Floats]]]
"""Finds tops that the last close breaks: in which windows, and for each of these (hits,) the strength
and the prices that made it."""


def judge(c: Candles, p: Parameters, tops: Tops, *, upside_down: bool = False) -> Found:
    """What the shape `tops` is in these windows; upside down, its mirror image.

    tops are asked about windows in which `span` candles or more lie on each side of the highest high.
    The judged close is to be the first one below some line since a peak of `span`, and the highest
    high at least `min_height` above that line, as a share of it.
    """
    shape = c.close.shape[1:]
    high, low, close = (column.reshape(len(c), -1) for column in (c.high, c.low, c.close))
    if upside_down:
        high, low, close = -low, -high, -close
    span = p.whole("span")
    candidates = may_end_here(high, close, span, p.min_height)
    some_high, some_low, some_close = (column[:, candidates] for column in (high, low, close))
    found, strength, details = tops(
        Chart(some_high, some_low, some_close, peaks(some_high, span)), p
    )
    sign = -1 if upside_down else 1

    def everywhere(values: Floats) -> Floats:
        spread = np.full(high.shape[1], np.nan)
        spread[candidates[found]] = values
        return spread.reshape(shape)

    told = {name: everywhere(sign * prices) for name, prices in details.items()}
    strengths = everywhere(strength)
    return Found(~np.isnan(strengths), -sign, strengths, told)


def judge_series(c: Candles, p: Parameters, tops: Tops, *, upside_down: bool = False) -> FoundAt:
    """The same for all windows of a series: those alone are cut out of it that are worth looking at."""
    high, low, close = (-c.low, -c.high, -c.close) if upside_down else (c.high, c.low, c.close)
    length, span = window(p, c.timeframe), p.whole("span")
    series = Chart(high, low, close, peaks(high, span))
    sign = -1 if upside_down else 1
    some = may_end_anywhere(high, close, length, span, p.min_height)
    at, strengths, told = [], [], []
    for candidates in np.array_split(some, len(some) // CANDIDATES + 1):
        found, strength, details = tops(series.cut(candidates, length, span), p)
        at.append(candidates[found])
        strengths.append(strength)
        told.append({name: sign * values for name, values in details.items()})
    together = {name: np.concatenate([each[name] for each in told]) for name in told[0]}
    return FoundAt(np.concatenate(at), -sign, np.concatenate(strengths), together)


def may_end_anywhere(
    high: Floats, close: Floats, length: int, span: int, min_height: float
) -> Places:
    """Which windows of a series may_end_here() would name, from what they share with their neighbours."""
    windows = len(high) - length + 1
    edge = sliding_max(high, span)
    inner = sliding_max(high, length - 2 * span)[span : span + windows]
    last = close[length - 1 :]
    where = (inner >= edge[:windows]) & (inner >= edge[length - span :])
    where &= at_least(inner, last + min_height * np.abs(last))
    if span > 1:
        lowest = -sliding_max(-close, span - 1)[length - span :][:windows]
        where &= last < lowest
    return where.nonzero()[0]


def may_end_here(high: Floats, close: Floats, span: int, min_height: float) -> Places:
    """Where it is worth looking. What is left out here can't be a top: its highest high is too near
    an edge to be a peak, or too near to the judged close, which is below the line; or a close between
    the last peak and the judged one is below the line as well."""
    edges = np.maximum(high[:span].max(axis=0), high[-span:].max(axis=0))
    inner = high[span : len(high) - span].max(axis=0, initial=-np.inf)
    lowest = close[-span:-1].min(axis=0, initial=np.inf)
    where = (inner >= edges) & (close[-1] < lowest)
    where &= at_least(inner, close[-1] + min_height * np.abs(close[-1]))
    places: Places = where.nonzero()[0]
    return places


def peaks(high: Floats, span: int) -> Bools:
    """(length, windows): which candles have a high above those of `span` candles before and not below
    those of `span` candles after; all of these must be in the window."""
    inner = high[span : len(high) - span]
    found = np.zeros(high.shape, dtype=np.bool_)
    found[span : len(high) - span] = True
    for n in range(1, span + 1):
        found[span : len(high) - span] &= inner > high[span - n : len(high) - span - n]
        found[span : len(high) - span] &= inner >= high[span + n : len(high) - span + n]
    return found


def rows(prices: Floats) -> Places:
    """(length, 1): the places of the candles."""
    return np.arange(len(prices))[:, np.newaxis]


def highest(high: Floats, where: Bools) -> tuple[Places, Floats]:
    """In each window the first highest candle of those marked, and its high: -inf if none is."""
    marked = np.where(where, high, -np.inf)
    place = marked.argmax(axis=0)
    return place, at(marked, place)


def at(prices: Floats, place: Places) -> Floats:
    """The price of each window at its place."""
    return prices[place, np.arange(prices.shape[1])]


def lowest_between(low: Floats, first: Places, last: Places) -> Floats:
    """The lowest low of the candles between two places, without these; inf if there are none."""
    n = rows(low)
    lowest: Floats = np.where((n > first) & (n < last), low, np.inf).min(axis=0)
    return lowest


def lowest_close_since(close: Floats, place: Places) -> Floats:
    """The lowest close after a place and before the judged candle; inf if there is none."""
    return lowest_between(close, place, np.full(place.shape, len(close) - 1))
