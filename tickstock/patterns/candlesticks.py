"""TA-Lib's 61 candlestick patterns, by its own names: CDL2CROWS to CDLXSIDEGAP3METHODS.

TA-Lib judges every candle of a series. Windows are laid end to end and make one series, so one call
does for all of them; what is before a window's first candle is another window's, which must not and
does not matter to its last one.

TA-Lib keeps running sums of bodies and shadows. On floats these drift, and a candle at the edge of a
definition would depend on where the series began. So it is given prices in whole millionths of a
dollar: sums of these are exact, and windows find what the whole series finds.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import talib
from numpy.typing import NDArray
from talib import abstract

from tickstock.patterns.definition import Candles, Floats, Found, Parameters, PythonPattern, pattern

CANDLES = 15
"""The longest look-back of all of them, and the judged candle."""

Values = NDArray[np.int32]
"""What TA-Lib says about each candle: 0, or up to 100 or 200, negative for bearish."""


def candlestick(name: str) -> PythonPattern:
    """TA-Lib's function of that name as a pattern."""
    call = getattr(talib, name)
    function: Any = getattr(abstract, name)
    lookback: int = function.lookback
    title: str = function.info["display_name"]

    def values(c: Candles, p: Parameters) -> Values:
        result: Values = call(*c.end_to_end, **p)
        return result

    def judge(c: Candles, p: Parameters) -> Found:
        last = values(c, p).reshape(c.close.T.shape)[..., -1]
        return found(last, c.close[-1 - lookback])

    def judge_series(c: Candles, p: Parameters) -> Found:
        first = CANDLES - 1
        return found(values(c, p)[first:], c.close[first - lookback : len(c) - lookback])

    judge.__doc__ = DESCRIPTION.format(title=title, name=name)
    declare = pattern(
        name,
        candles=CANDLES,
        parameters=dict(function.info["parameters"]),
        source="TA-Lib",
    )
    return replace(declare(judge), series=judge_series)


DESCRIPTION = """{title}, as TA-Lib's {name} finds it.

Long where its result is positive, short where it is negative; the result is `value` in the details.
penetration, where there is one: how far into the first candle's body another closes, a share of it.
Strength: |value| / 100, at most 1. Most patterns know 100 only.
"""


def found(values: Values, reached: Floats) -> Found:
    """reached: a price of the first candle that TA-Lib must look at; without it the result is void."""
    value = values.astype(np.float64)
    strength = np.minimum(np.abs(value) / 100, 1)
    where = (values != 0) & ~np.isnan(reached)
    return Found(where, np.sign(values).astype(np.int8), strength, {"value": value})


GROUPS: dict[str, list[str]] = talib.get_function_groups()  # type: ignore[no-untyped-call]
PATTERNS = tuple(candlestick(name) for name in GROUPS["Pattern Recognition"])
