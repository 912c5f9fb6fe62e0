"""TA-Lib's 61 candlestick patterns, by its own names: CDL2CROWS to CDLXSIDEGAP3METHODS.

TA-Lib judges every candle of a series. Windows are laid end to end and make one series, so one call
does for all of them; what is before a window's first candle is another window's, which must not and
does not matter to its last one.

TA-Lib keeps running sums of bodies and shadows. On floats these drift, and a candle at the edge of a
definition would depend on where the series began. So it is given prices in whole millionths of a
dollar: sums of these are exact, and windows find what the whole series finds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import talib
from numpy.typing import NDArray
from talib import abstract

from tickstock.patterns.definition import (
    Candles,
    Floats,
    Found,
    FoundAt,
    Parameters,
    PythonPattern,
    pattern,
)

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
    defaults: dict[str, float] = dict(function.info["parameters"])

    def values(c: Candles, p: Parameters) -> Values:
        result: Values = call(*c.end_to_end, **p)
        return result

    def candles(p: Parameters, _timeframe: str) -> int:
        """ValueError for numbers that TA-Lib does not take: only the library itself knows them."""
        if defaults:
            try:
                call(*np.zeros((4, CANDLES)), **p)
            except Exception:  # it raises no class of its own
                raise ValueError(
                    OUT_OF_RANGE.format(given=_listed(p), usual=_listed(defaults))
                ) from None
        return CANDLES

    # Where a candle is missing that TA-Lib must look at, its result is void.
    def judge(c: Candles, p: Parameters) -> Found:
        last = values(c, p).reshape(c.close.T.shape)[..., -1]
        return Found((last != 0) & ~np.isnan(c.close[-1 - lookback]), *told(last))

    def judge_series(c: Candles, p: Parameters) -> FoundAt:
        last = values(c, p)[CANDLES - 1 :]
        at = (last != 0).nonzero()[0]  # many times faster on truth values
        at = at[~np.isnan(c.close[at + CANDLES - 1 - lookback])]
        return FoundAt(at, *told(last[at]))

    judge.__doc__ = DESCRIPTION.format(title=title, name=name)
    declare = pattern(
        name,
        candles=candles,
        parameters=defaults,
        source="TA-Lib",
        series=judge_series,
    )
    return declare(judge)


OUT_OF_RANGE = "TA-Lib refuses {given}: it must not be below 0 (default {usual})"
DESCRIPTION = """{title}, as TA-Lib's {name} finds it.

Long where its result is positive, short where it is negative; the result is `value` in the details.
penetration, where there is one: how far into the first candle's body another closes, a share of it.
Strength: |value| / 100, at most 1. Most patterns know 100 only.
"""


def _listed(parameters: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in parameters.items())


def told(values: Values) -> tuple[NDArray[np.int8], Floats, dict[str, Floats]]:
    """Direction, strength and details."""
    strength = np.minimum(np.abs(values) / 100, 1)
    return np.sign(values).astype(np.int8), strength, {"value": values.astype(np.float64)}


GROUPS: dict[str, list[str]] = talib.get_function_groups()  # type: ignore[no-untyped-call]
PATTERNS = tuple(candlestick(name) for name in GROUPS["Pattern Recognition"])
