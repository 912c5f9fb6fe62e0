"""Peaks and troughs of windows, for the patterns of chart shapes.

A shape is looked for as a top; its mirror image, the bottom, is the same on negated prices.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickstock.patterns.arithmetic import at_least
from tickstock.patterns.definition import Bools, Candles, Floats, Found, Parameters

Places = NDArray[np.intp]
"""(windows,): which candle of each window, from 0 on."""


def window(p: Parameters, _timeframe: str) -> int:
    """How many candles a shape may span: the parameter of that name."""
    return p.whole("window")


class Chart(NamedTuple):
    """(length, windows) each."""

    high: Floats
    low: Floats
    close: Floats

    def pick(self, where: Bools) -> "Chart":
        """Some of the windows."""
        return Chart(*(column[:, where] for column in self))


Tops = Callable[[Chart, Parameters], tuple[Bools, Floats, dict[str, Floats]]]
"""Finds tops that the last close breaks: where, strength, and the prices that made them."""


def judge(c: Candles, p: Parameters, tops: Tops, *, upside_down: bool = False) -> Found:
    """What the shape `tops` is in these windows; upside down, its mirror image.

    tops are asked about windows in which `span` candles or more lie on each side of the highest high.
    The judged close is to be the first one below some line since a peak of `span`, and the highest
    high at least `min_height` above that line, as a share of it.
    """
    shape = c.close.shape[1:]
    high, low, close = (column.reshape(len(c), -1) for column in (c.high, c.low, c.close))
    prices = Chart(-low, -high, -close) if upside_down else Chart(high, low, close)
    candidates = may_end_here(prices, p.whole("span"), p.min_height)
    found, strength, details = tops(prices.pick(candidates), p)
    where = np.zeros(candidates.shape, dtype=np.bool_)
    where[candidates] = found
    sign = -1 if upside_down else 1

    def everywhere(values: Floats) -> Floats:
        spread = np.full(candidates.shape, np.nan)
        spread[candidates] = values
        return spread.reshape(shape)

    told = {name: everywhere(sign * prices) for name, prices in details.items()}
    return Found(where.reshape(shape), -sign, everywhere(strength), told)


def may_end_here(prices: Chart, span: int, min_height: float) -> Bools:
    """Where it is worth looking. What is left out here can't be a top: its highest high is too near
    an edge to be a peak, or too near to the judged close, which is below the line; or a close between
    the last peak and the judged one is below the line as well."""
    high, close = prices.high, prices.close
    edges = np.maximum(high[:span].max(axis=0), high[-span:].max(axis=0))
    inner = high[span : len(high) - span].max(axis=0, initial=-np.inf)
    lowest = close[-span:-1].min(axis=0, initial=np.inf)
    where: Bools = (inner >= edges) & (close[-1] < lowest)
    return where & at_least(inner, close[-1] + min_height * np.abs(close[-1]))


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
