"""Our patterns once more, written from their definitions, for one window, in plain Python.

Prices are whole cents as Fractions of a dollar, so that nothing is rounded. An oracle is given the
symbol's candles up to the judged one, and the pattern's parameters, and tells the direction or None.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

from tests.patterns.windows import Market, session_of

Numbers = dict[str, Fraction]


class Bar(NamedTuple):
    ts: float
    open: Fraction
    high: Fraction
    low: Fraction
    close: Fraction
    volume: int


Oracle = Callable[[Sequence[Bar], Numbers], str | None]


def bars_of(market: Market) -> list[Bar]:
    found = []
    for ts, prices, volume in zip(market.ts, market.prices, market.volumes, strict=True):
        open_, high, low, close = (Fraction(int(price), 100) for price in prices)
        found.append(Bar(float(ts), open_, high, low, close, int(volume)))
    return found


def doji(bars: Sequence[Bar], p: Numbers) -> str | None:
    b = bars[-1]
    size = b.high - b.low
    even = abs(b.close - b.open) <= p["max_body"] * size
    return "neutral" if size > 0 and size >= p["min_range"] and even else None


def is_hammer(b: Bar, p: Numbers) -> bool:
    body = abs(b.close - b.open)
    lower, upper = min(b.open, b.close) - b.low, b.high - max(b.open, b.close)
    return lower >= p["min_shadow"] * body and upper < body and body >= p["min_body"]


def hammer(bars: Sequence[Bar], p: Numbers) -> str | None:
    closes = [b.close for b in bars[-int(p["trend"]) - 1 : -1]]
    if len(closes) < p["trend"] or not is_hammer(bars[-1], p):
        return None
    return "long" if closes[-1] * len(closes) < sum(closes) else None


def hanging_man(bars: Sequence[Bar], p: Numbers) -> str | None:
    closes = [b.close for b in bars[-int(p["trend"]) - 1 : -1]]
    if len(closes) < p["trend"] or not is_hammer(bars[-1], p):
        return None
    return "short" if closes[-1] * len(closes) > sum(closes) else None


def closed_in_top_range(bars: Sequence[Bar], p: Numbers) -> str | None:
    b = bars[-1]
    size = b.high - b.low
    fits = 0 < size >= p["min_range"] and b.close >= b.high - size * p["max_distance"]
    return "long" if fits else None


def closed_in_bottom_range(bars: Sequence[Bar], p: Numbers) -> str | None:
    b = bars[-1]
    size = b.high - b.low
    fits = 0 < size >= p["min_range"] and b.close <= b.low + size * p["max_distance"]
    return "short" if fits else None


def bullish_engulfing(bars: Sequence[Bar], p: Numbers) -> str | None:
    if len(bars) < 2 or bars[-2].close >= bars[-2].open:
        return None
    before, b = bars[-2:]
    holds = b.open <= before.close < before.open <= b.close
    larger = b.close - b.open >= p["min_ratio"] * (before.open - before.close)
    return "long" if holds and larger else None


def bearish_engulfing(bars: Sequence[Bar], p: Numbers) -> str | None:
    if len(bars) < 2 or bars[-2].close <= bars[-2].open:
        return None
    before, b = bars[-2:]
    holds = b.close <= before.open < before.close <= b.open
    larger = b.open - b.close >= p["min_ratio"] * (before.close - before.open)
    return "short" if holds and larger else None


def average(closes: Sequence[Fraction], span: int) -> Decimal:
    """The exponential mean, in 40 digits."""
    with localcontext() as context:
        context.prec = 40
        weight = Decimal(2) / (span + 1)
        values = [Decimal(each.numerator) / each.denominator for each in closes]
        found = values[0]
        for value in values[1:]:
            found = found * (1 - weight) + value * weight
    return found


def ma_crossover(bars: Sequence[Bar], p: Numbers) -> str | None:
    closes = [b.close for b in bars[-4 * int(p["slow"]) - 1 :]]
    if len(closes) < 4 * p["slow"] + 1:
        return None
    before, now = (
        round(average(some, int(p["fast"])) - average(some, int(p["slow"])), 9)
        for some in (closes[:-1], closes[1:])
    )
    if before <= 0 < now:
        return "long"
    return "short" if before >= 0 > now else None


def of_today(bars: Sequence[Bar]) -> list[Bar]:
    opens, closes = session_of(bars[-1].ts)
    return [b for b in bars if opens <= b.ts < closes]


def high_of_day(bars: Sequence[Bar], _p: Numbers) -> str | None:
    today = of_today(bars)
    if len(today) < 2 or today[-1] is not bars[-1]:
        return None
    return "long" if all(bars[-1].high > b.high for b in today[:-1]) else None


def low_of_day(bars: Sequence[Bar], _p: Numbers) -> str | None:
    today = of_today(bars)
    if len(today) < 2 or today[-1] is not bars[-1]:
        return None
    return "short" if all(bars[-1].low < b.low for b in today[:-1]) else None


def day1_breakout(bars: Sequence[Bar], p: Numbers) -> str | None:
    before, b = bars[:-1], bars[-1]
    opens, _ = session_of(b.ts)
    if len(before) < max(p["mean_of"], p["extreme_of"]):
        return None
    if not opens <= b.ts < opens + 60 * p["minutes"]:
        return None
    volumes = [each.volume for each in before[-int(p["mean_of"]) :]]
    if b.volume * len(volumes) <= p["min_volume"] * sum(volumes):
        return None
    last = before[-int(p["extreme_of"]) :]
    if b.close > max(each.high for each in last):
        return "long"
    return "short" if b.close < min(each.low for each in last) else None


def steep(closes: Sequence[Fraction], p: Numbers, sign: int) -> bool:
    """The slope by the textbook: covariance of time and close, divided by the variance of time."""
    size = len(closes)
    mean_time, mean_close = Fraction(size - 1, 2), sum(closes) / size
    covariance = sum((n - mean_time) * (close - mean_close) for n, close in enumerate(closes))
    variance = sum((n - mean_time) ** 2 for n in range(size))
    return sign * covariance / variance > p["min_slope"] * mean_close


def trending(bars: Sequence[Bar], p: Numbers, sign: int) -> bool:
    size = int(p["length"])
    closes = [b.close for b in bars[-size - 1 :]]
    if len(closes) < size + 1:
        return False
    return steep(closes[1:], p, sign) and not steep(closes[:-1], p, sign)


def trending_up(bars: Sequence[Bar], p: Numbers) -> str | None:
    return "long" if trending(bars, p, 1) else None


def trending_down(bars: Sequence[Bar], p: Numbers) -> str | None:
    return "short" if trending(bars, p, -1) else None


def volume_spike(bars: Sequence[Bar], p: Numbers) -> str | None:
    b, volumes = bars[-1], [each.volume for each in bars[-int(p["mean_of"]) - 1 : -1]]
    if len(volumes) < p["mean_of"] or b.volume == 0:
        return None
    if b.volume * len(volumes) < p["min_volume"] * sum(volumes):
        return None
    return "long" if b.close > b.open else "short" if b.close < b.open else "neutral"


def opening_range_breakout(bars: Sequence[Bar], p: Numbers) -> str | None:
    today = of_today(bars)
    if not today or today[-1] is not bars[-1]:
        return None
    until = session_of(bars[-1].ts)[0] + 60 * int(p["minutes"])
    early, later = [b for b in today if b.ts < until], [b for b in today if b.ts >= until]
    if not early or not later:
        return None
    high, low = max(b.high for b in early), min(b.low for b in early)
    if any(b.close > high or b.close < low for b in later[:-1]):
        return None
    return "long" if later[-1].close > high else "short" if later[-1].close < low else None


def upside_down(bars: Sequence[Bar]) -> list[Bar]:
    return [Bar(b.ts, -b.open, -b.low, -b.high, -b.close, b.volume) for b in bars]


def peaks_of(bars: Sequence[Bar], span: int) -> list[int]:
    return [
        n
        for n in range(span, len(bars) - span)
        if all(bars[n].high > b.high for b in bars[n - span : n])
        and all(bars[n].high >= b.high for b in bars[n + 1 : n + span + 1])
    ]


def highest_of(bars: Sequence[Bar], places: Sequence[int]) -> int | None:
    return max(places, key=lambda n: (bars[n].high, -n), default=None)


def is_first_break(bars: Sequence[Bar], since: int, line: Fraction) -> bool:
    return bars[-1].close < line and all(b.close >= line for b in bars[since + 1 : -1])


def has_head_and_shoulders(bars: Sequence[Bar], p: Numbers) -> bool:
    bars = bars[-int(p["window"]) :]
    peaks = peaks_of(bars, int(p["span"]))
    head = highest_of(bars, range(len(bars)))
    if len(bars) < p["window"] or head not in peaks:
        return False
    left = highest_of(bars, [n for n in peaks if n < head])
    right = highest_of(bars, [n for n in peaks if n > head])
    if left is None or right is None:
        return False
    troughs = [
        min(b.low for b in bars[left + 1 : head]),
        min(b.low for b in bars[head + 1 : right]),
    ]
    line = sum(troughs) / Fraction(2)
    height = bars[head].high - line
    shoulders = [bars[left].high, bars[right].high]
    return (
        line < min(shoulders)
        and max(shoulders) < bars[head].high
        and abs(shoulders[0] - shoulders[1]) <= p["tolerance"] * height
        and abs(troughs[0] - troughs[1]) <= p["tolerance"] * height
        and height >= p["min_height"] * abs(line)
        and is_first_break(bars, right, line)
    )


def head_and_shoulders(bars: Sequence[Bar], p: Numbers) -> str | None:
    return "short" if has_head_and_shoulders(bars, p) else None


def inverse_head_and_shoulders(bars: Sequence[Bar], p: Numbers) -> str | None:
    return "long" if has_head_and_shoulders(upside_down(bars), p) else None


def has_double_top(bars: Sequence[Bar], p: Numbers) -> bool:
    bars = bars[-int(p["window"]) :]
    peaks = peaks_of(bars, int(p["span"]))
    top = highest_of(bars, range(len(bars)))
    if len(bars) < p["window"] or top not in peaks:
        return False
    other = highest_of(bars, [n for n in peaks if abs(n - top) >= p["apart"]])
    if other is None:
        return False
    first, second = sorted((top, other))
    line = min(b.low for b in bars[first + 1 : second])
    height = (bars[top].high + bars[other].high) / 2 - line
    return (
        bars[top].high - bars[other].high <= p["tolerance"] * height
        and height >= p["min_height"] * abs(line)
        and is_first_break(bars, second, line)
    )


def double_top(bars: Sequence[Bar], p: Numbers) -> str | None:
    return "short" if has_double_top(bars, p) else None


def double_bottom(bars: Sequence[Bar], p: Numbers) -> str | None:
    return "long" if has_double_top(upside_down(bars), p) else None


ORACLES: dict[str, Oracle] = {
    "BearishEngulfing": bearish_engulfing,
    "BullishEngulfing": bullish_engulfing,
    "ClosedInBottomRange": closed_in_bottom_range,
    "ClosedInTopRange": closed_in_top_range,
    "Day1Breakout": day1_breakout,
    "Doji": doji,
    "DoubleBottom": double_bottom,
    "DoubleTop": double_top,
    "Hammer": hammer,
    "HangingMan": hanging_man,
    "HeadAndShoulders": head_and_shoulders,
    "HighOfDay": high_of_day,
    "InverseHeadAndShoulders": inverse_head_and_shoulders,
    "LowOfDay": low_of_day,
    "MACrossover": ma_crossover,
    "OpeningRangeBreakout": opening_range_breakout,
    "TrendingDown": trending_down,
    "TrendingUp": trending_up,
    "VolumeSpike": volume_spike,
}
