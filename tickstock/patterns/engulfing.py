"""BullishEngulfing and BearishEngulfing: a candle whose body holds the whole body before."""

from tickstock.patterns import Candles, Floats, Found, Parameters, pattern
from tickstock.patterns.arithmetic import at_least, share

PARAMETERS = {"min_ratio": 1.1}
SOURCE = "the original plan; Nison, Japanese Candlestick Charting Techniques"


@pattern("BullishEngulfing", candles=2, parameters=PARAMETERS, source=SOURCE)
def bullish_engulfing(c: Candles, p: Parameters) -> Found:
    """A rising candle whose body holds the body of the falling one before.

    close < open before; open <= close before and close >= open before; the body is at least min_ratio
    times the body before.
    min_ratio: times the body before.
    Strength: 1 - body before / body: 0.5 for twice the body, 0.75 for four times.
    """
    body, body_before = c.close[-1] - c.open[-1], c.open[-2] - c.close[-2]
    where = (
        (c.close[-2] < c.open[-2])
        & (c.open[-1] <= c.close[-2])
        & (c.close[-1] >= c.open[-2])
        & at_least(body, p.min_ratio * body_before)
    )
    return Found(where, 1, *_told(body, body_before))


@pattern("BearishEngulfing", candles=2, parameters=PARAMETERS, source=SOURCE)
def bearish_engulfing(c: Candles, p: Parameters) -> Found:
    """A falling candle whose body holds the body of the rising one before.

    close > open before; open >= close before and close <= open before; the body is at least min_ratio
    times the body before.
    min_ratio: times the body before.
    Strength: 1 - body before / body: 0.5 for twice the body, 0.75 for four times.
    """
    body, body_before = c.open[-1] - c.close[-1], c.close[-2] - c.open[-2]
    where = (
        (c.close[-2] > c.open[-2])
        & (c.open[-1] >= c.close[-2])
        & (c.close[-1] <= c.open[-2])
        & at_least(body, p.min_ratio * body_before)
    )
    return Found(where, -1, *_told(body, body_before))


def _told(body: Floats, body_before: Floats) -> tuple[Floats, dict[str, Floats]]:
    return 1 - share(body_before, body), {"body": body, "body_before": body_before}
