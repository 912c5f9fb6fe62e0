"""Hammer and HangingMan: the same candle, after a fall and after a rise."""

import numpy as np

from tickstock.patterns import Bools, Candles, Floats, Found, Parameters, pattern
from tickstock.patterns.arithmetic import above, at_least, below, mean, share

PARAMETERS = {"min_shadow": 2.0, "min_body": 0.01, "trend": 10}


def length(p: Parameters, _timeframe: str) -> int:
    return p.whole("trend") + 1


def shape(c: Candles, p: Parameters) -> tuple[Bools, Floats, dict[str, Floats]]:
    """Where the candle is a hammer, its strength, and its measures."""
    top, bottom = np.maximum(c.open[-1], c.close[-1]), np.minimum(c.open[-1], c.close[-1])
    body, lower, upper = top - bottom, bottom - c.low[-1], c.high[-1] - top
    where = at_least(lower, p.min_shadow * body) & below(upper, body) & at_least(body, p.min_body)
    details = {"body": body, "lower_shadow": lower, "upper_shadow": upper}
    return where, share(lower, c.high[-1] - c.low[-1]), details


def before(c: Candles, p: Parameters) -> tuple[Floats, Floats]:
    """The close before the candle, and the mean of the closes that ends with it."""
    closes = c.close[-p.whole("trend") - 1 : -1]
    return closes[-1], mean(closes)


@pattern(
    "Hammer",
    candles=length,
    parameters=PARAMETERS,
    source="the original plan; the trend before after Morris, Candlestick Charting Explained",
)
def hammer(c: Candles, p: Parameters) -> Found:
    """After a fall, prices sank far below the open and came back.

    Lower shadow >= min_shadow * body, upper shadow < body, body >= min_body; and a fall before: the
    close before is below the mean of the `trend` closes that end with it. The original plan
    leaves out the fall, without which Hammer and HangingMan are the same; Morris takes an exponential
    mean, also of 10 candles.
    min_shadow: times the body. min_body: dollars. trend: candles.
    Strength: the share of the range that is lower shadow.
    """
    where, strength, details = shape(c, p)
    close, average = before(c, p)
    return Found(where & below(close, average), 1, strength, {**details, "mean_before": average})


@pattern(
    "HangingMan",
    candles=length,
    parameters=PARAMETERS,
    source="the original plan; the trend before after Morris, Candlestick Charting Explained",
)
def hanging_man(c: Candles, p: Parameters) -> Found:
    """After a rise, prices sank far below the open and came back: the first doubt.

    The candle of Hammer, after a rise: the close before is above the mean of the `trend` closes that
    end with it.
    min_shadow: times the body. min_body: dollars. trend: candles.
    Strength: the share of the range that is lower shadow.
    """
    where, strength, details = shape(c, p)
    close, average = before(c, p)
    return Found(where & above(close, average), -1, strength, {**details, "mean_before": average})
