"""HeadAndShoulders and InverseHeadAndShoulders: three peaks, the middle one highest, and the break."""

import numpy as np

from tickstock.patterns import Candles, Floats, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, at_most, below, share
from tickstock.patterns.shapes import (
    Chart,
    Places,
    at,
    highest,
    judge,
    judge_series,
    lowest_between,
    lowest_close_since,
    rows,
    window,
)

PARAMETERS = {"window": 50, "span": 3, "tolerance": 0.25, "min_height": 0.005}
SOURCE = "the original plan; level as a share of the height after Lo, Mamaysky, Wang (2000)"


@pattern(
    "HeadAndShoulders",
    candles=window,
    parameters=PARAMETERS,
    source=SOURCE,
    series=lambda c, p: judge_series(c, p, tops),
)
def head_and_shoulders(c: Candles, p: Parameters) -> Found:
    """Three peaks, the middle one highest, and the first close below the line through the troughs.

    A peak is a high above the `span` highs before it and not below the `span` highs after it. The head
    is the highest high of the window, and a peak; the shoulders are the highest peaks before and after
    it; the troughs are the lowest lows between. The neckline is the mean of the troughs, the height is
    head - neckline. Shoulders lie between neckline and head; they differ by at most tolerance * height,
    and so do the troughs; height >= min_height * neckline. The judged close is the first one below the
    neckline since the right shoulder.
    The original plan allows 2% of the price, but on minute candles that is the whole movement. As a
    share of the height, the tolerance fits each timeframe.
    window, span: candles. tolerance: share of the height. min_height: share of the price.
    Strength: how level the shoulders are, 1 - difference / height.
    """
    return judge(c, p, tops)


@pattern(
    "InverseHeadAndShoulders",
    candles=window,
    parameters=PARAMETERS,
    source=SOURCE,
    series=lambda c, p: judge_series(c, p, tops, upside_down=True),
)
def inverse_head_and_shoulders(c: Candles, p: Parameters) -> Found:
    """Three troughs, the middle one lowest, and the first close above the line through the peaks.

    The mirror image of HeadAndShoulders: highs for lows, above for below.
    window, span: candles. tolerance: share of the height. min_height: share of the price.
    Strength: how level the shoulders are, 1 - difference / height.
    """
    return judge(c, p, tops, upside_down=True)


def tops(prices: Chart, p: Parameters) -> tuple[Places, Floats, dict[str, Floats]]:
    highs, last = prices.high, prices.last
    middle = highs.argmax(axis=0)
    head = at(highs, middle)
    before, left = highest(highs, rows(highs) < middle)
    after, right = highest(highs, rows(highs) > middle)
    apart, lower = np.abs(left - right), np.minimum(left, right)
    # The neckline is above the judged close: most windows need no look at their troughs.
    near = (
        above(head, np.maximum(left, right))
        & (lower > last)
        & at_most(apart, p.tolerance * (head - last))
    ).nonzero()[0]
    low, close = prices.cut(near)
    left_at, head_at, right_at = (at(prices.place, n)[near] for n in (before, middle, after))
    head, left, right, apart, lower = (each[near] for each in (head, left, right, apart, lower))
    first, second = lowest_between(low, left_at, head_at), lowest_between(low, head_at, right_at)
    neckline = (first + second) / 2
    height = head - neckline
    found = (
        above(lower, neckline)
        & at_most(apart, p.tolerance * height)
        & at_most(np.abs(first - second), p.tolerance * height)
        & at_least(height, p.min_height * np.abs(neckline))
        & below(close[-1], neckline)
        & at_least(lowest_close_since(close, right_at), neckline)
    )
    strength = 1 - share(apart, height)
    details = {"left": left, "head": head, "right": right, "neckline": neckline}
    return near[found], strength[found], {name: each[found] for name, each in details.items()}
