"""DoubleTop and DoubleBottom: prices fail twice at the same level, and turn."""

import numpy as np

from tickstock.patterns import Candles, Floats, Found, Parameters, pattern
from tickstock.patterns.arithmetic import at_least, at_most, share
from tickstock.patterns.shapes import (
    Chart,
    Places,
    at,
    highest,
    judge,
    judge_series,
    lowest_between,
    lowest_close_since,
    window,
)

PARAMETERS = {"window": 30, "span": 3, "apart": 5, "tolerance": 0.15, "min_height": 0.005}
SOURCE = "the original plan; the highest of the window, level as a share of the height: our own"


@pattern(
    "DoubleTop",
    candles=window,
    parameters=PARAMETERS,
    source=SOURCE,
    series=lambda c, p: judge_series(c, p, tops),
)
def double_top(c: Candles, p: Parameters) -> Found:
    """Two peaks at the same level, and the first close below the low between them.

    A peak is a high above the `span` highs before it and not below the `span` highs after it. One peak
    is the highest high of the window; the other is the highest peak at least `apart` candles from it.
    The height is their mean - the lowest low between them; they differ by at most tolerance * height,
    and height >= min_height * that low. The judged close is the first one below that low since the
    second peak.
    The original plan allows 2% of the price, but on minute candles that is the whole movement. As a
    share of the height, the tolerance fits each timeframe.
    window, span, apart: candles. tolerance: share of the height. min_height: share of the price.
    Strength: how level the peaks are, 1 - difference / height.
    """
    return judge(c, p, tops)


@pattern(
    "DoubleBottom",
    candles=window,
    parameters=PARAMETERS,
    source=SOURCE,
    series=lambda c, p: judge_series(c, p, tops, upside_down=True),
)
def double_bottom(c: Candles, p: Parameters) -> Found:
    """Two troughs at the same level, and the first close above the high between them.

    The mirror image of DoubleTop: highs for lows, above for below.
    window, span, apart: candles. tolerance: share of the height. min_height: share of the price.
    Strength: how level the troughs are, 1 - difference / height.
    """
    return judge(c, p, tops, upside_down=True)


def tops(prices: Chart, p: Parameters) -> tuple[Places, Floats, dict[str, Floats]]:
    highs, last = prices.high, prices.last
    number = highs.argmax(axis=0)
    top, top_at = at(highs, number), at(prices.place, number)
    number, other = highest(highs, np.abs(prices.place - top_at) >= p.apart)
    # The low between is above the judged close: most windows need no look at it.
    near = ((other > last) & at_most(top - other, p.tolerance * (top - last))).nonzero()[0]
    low, close = prices.cut(near)
    other_at = at(prices.place, number)
    top, other = top[near], other[near]
    top_at, other_at = top_at[near], other_at[near]
    first_at, second_at = np.minimum(top_at, other_at), np.maximum(top_at, other_at)
    between = lowest_between(low, first_at, second_at)
    height = (top + other) / 2 - between
    found = (
        at_most(top - other, p.tolerance * height)
        & at_least(height, p.min_height * np.abs(between))
        & (close[-1] < between)
        & (lowest_close_since(close, second_at) >= between)
    )
    strength = 1 - share(top - other, height)
    earlier = top_at < other_at
    first, second = np.where(earlier, top, other), np.where(earlier, other, top)
    details = {"first": first, "second": second, "neckline": between}
    return near[found], strength[found], {name: each[found] for name, each in details.items()}
