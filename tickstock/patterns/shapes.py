"""Peaks and troughs of windows, for the patterns of chart shapes.

A shape is looked for as a top; its mirror image, the bottom, is the same on negated prices.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tickstock.patterns.arithmetic import at_least, sliding_max
from tickstock.patterns.definition import Bools, Candles, Floats, Found, FoundAt, Parameters

Number = TypeVar("Number", np.float64, np.intp)
Places = NDArray[np.intp]
"""(windows,): which candle of each window, from 0 on."""


def window(p: Parameters, _timeframe: str) -> int:
    """How many candles a shape may span: the parameter of that name. ValueError if no peak fits."""
    candles, span = p.whole("window"), p.whole("span")
    if candles <= 2 * span:
        raise ValueError(f"parameter window is {candles}, it must be more than twice span ({span})")
    return candles


class Chart(NamedTuple):
    """Windows in which the highest high is a peak."""

    place: Places
    """(peaks, windows): which candles are peaks, see peaks(), oldest first."""
    high: Floats
    """(peaks, windows): their highs; -inf where a window has no more peaks."""
    last: Floats
    """(windows,): the judged closes."""
    cut: Callable[[Places], tuple[Floats, Floats]]
    """Lows and closes of some of the windows, (length, some)."""


CANDIDATES = 4_096
"""Windows of a series that are looked at together: few enough for the processor's cache."""

Tops = Callable[[Chart, Parameters], tuple[Places, Floats, dict[str, Floats]]]
"""Finds tops that the last close breaks: in which windows, and for each of these (hits,) the strength
and the prices that made it."""


def judge(c: Candles, p: Parameters, tops: Tops, *, upside_down: bool = False) -> Found:
    """What the shape `tops` is in these windows; upside down, its mirror image.

    tops are asked about windows in which the highest high is a peak of `span` candles.
    The judged close is to be the first one below some line since a peak of `span`, and the highest
    high at least `min_height` above that line, as a share of it.
    """
    shape = c.close.shape[1:]
    high, low, close = (column.reshape(len(c), -1) for column in (c.high, c.low, c.close))
    if upside_down:
        high, low, close = -low, -high, -close
    span = p.whole("span")
    candidates = may_end_here(high, close, span, p.min_height)
    some = high[:, candidates]
    marked = np.where(peaks(some, span), some, -np.inf)

    def cut(windows: Places) -> tuple[Floats, Floats]:
        return low[:, candidates[windows]], close[:, candidates[windows]]

    place = np.broadcast_to(rows(some), some.shape)
    found, strength, details = tops(Chart(place, marked, close[-1, candidates], cut), p)
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
    is_peak = peaks(high, span)
    sign = -1 if upside_down else 1
    some = may_end_anywhere(high, close, is_peak, length, span, p.min_height)
    at, strengths, told = [], [], []
    for candidates in np.array_split(some, len(some) // CANDIDATES + 1):

        def cut(windows: Places, first: Places = candidates) -> tuple[Floats, Floats]:
            low_there, close_there = (
                sliding_window_view(column, length)[first[windows]].T for column in (low, close)
            )
            return low_there, close_there

        place, highs = peaks_within(high, is_peak, candidates, length, span)
        last = close[candidates + length - 1]
        found, strength, details = tops(Chart(place, highs, last, cut), p)
        at.append(candidates[found])
        strengths.append(strength)
        told.append({name: sign * values for name, values in details.items()})
    together = {name: np.concatenate([each[name] for each in told]) for name in told[0]}
    return FoundAt(np.concatenate(at), -sign, np.concatenate(strengths), together)


def peaks_within(
    high: Floats, is_peak: Bools, windows: Places, length: int, span: int
) -> tuple[Places, Floats]:
    """Places and highs of the peaks in these windows of a series, as in Chart."""
    # Of what lies beyond its edges a window knows nothing; and of two peaks within `span` candles
    # each would be higher than the other.
    most = -(-(length - 2 * span) // (span + 1))
    where = np.append(is_peak.nonzero()[0], np.full(most, len(high)))
    before: Places = np.cumsum(is_peak) - is_peak
    number = before[windows + span] + np.arange(most)[:, np.newaxis]
    place = where[number] - windows
    return place, np.where(place < length - span, np.append(high, np.nan)[where][number], -np.inf)


def may_end_anywhere(
    high: Floats, close: Floats, is_peak: Bools, length: int, span: int, min_height: float
) -> Places:
    """Which windows of a series may_end_here() would name, from what they share with their neighbours;
    but for those in which a close since the last peak is below the judged one."""
    windows = len(high) - length + 1
    edge = sliding_max(high, span)
    inner = sliding_max(high, length - 2 * span)[span : span + windows]
    last = close[length - 1 :]
    where = (inner > edge[:windows]) & (inner >= edge[length - span :])
    where &= at_least(inner, last + min_height * np.abs(last))
    where &= last < lowest_since_peak(close, is_peak)[length - span - 1 :][:windows]
    if span > 1:
        lowest = -sliding_max(-close, span - 1)[length - span :][:windows]
        where &= last < lowest
    return where.nonzero()[0]


def lowest_since_peak(close: Floats, is_peak: Bools) -> Floats:
    """At each candle of a series, the lowest close after the last peak; inf at a peak."""
    # Of two complex numbers the lower is that with the lower real part, then imaginary part.
    peaks_before: Places = np.cumsum(is_peak)
    ranked = np.empty(len(close), dtype=np.complex128)
    ranked.real = -peaks_before
    ranked.imag = np.where(is_peak | np.isnan(close), np.inf, close)
    lowest: Floats = np.minimum.accumulate(ranked).imag
    return lowest


def may_end_here(high: Floats, close: Floats, span: int, min_height: float) -> Places:
    """Where it is worth looking. What is left out here can't be a top: its highest high is no peak, or
    too near to the judged close, which is below the line; or a close between the last peak and the
    judged one is below the line as well."""
    # The first one of the highest highs is a peak unless it is too near to an edge.
    inner = high[span : len(high) - span].max(axis=0, initial=-np.inf)
    lowest = close[-span:-1].min(axis=0, initial=np.inf)
    where = (inner > high[:span].max(axis=0)) & (inner >= high[-span:].max(axis=0))
    where &= close[-1] < lowest
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


def rows(values: Floats) -> Places:
    """(length, 1): the numbers of the rows."""
    return np.arange(len(values))[:, np.newaxis]


def highest(high: Floats, where: Bools) -> tuple[Places, Floats]:
    """In each window the first highest one of those marked, and its high: -inf if none is."""
    marked = np.where(where, high, -np.inf)
    number = marked.argmax(axis=0)
    return number, at(marked, number)


def at(values: NDArray[Number], place: Places) -> NDArray[Number]:
    """The value of each window at its place."""
    return values[place, np.arange(values.shape[1])]


def lowest_between(low: Floats, first: Places, last: Places) -> Floats:
    """The lowest low of the candles between two places, without these; inf if there are none."""
    n = rows(low)
    lowest: Floats = np.where((n > first) & (n < last), low, np.inf).min(axis=0)
    return lowest


def lowest_close_since(close: Floats, place: Places) -> Floats:
    """The lowest close after a place and before the judged candle; inf if there is none."""
    return lowest_between(close, place, np.full(place.shape, len(close) - 1))
