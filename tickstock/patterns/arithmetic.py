"""Arithmetic for patterns: the same window gives the same bits, whatever windows are beside it.

Two rules keep that so, and keep floats from deciding what decimals would decide otherwise:

- **Sums** along time go through `add_up` and those built upon it, which add one candle after the
  other. (numpy's own sum, mean and dot choose an order by memory layout and size.)
- **Comparisons.** Prices as they come compare exactly: floats keep the order and the equality of the
  decimals they were made from. What has been *computed* (a difference, a share, a mean) compares by
  `above`, `below`, `at_least` and `at_most`, which take what lies within rounding for equal: 10.11 -
  10.10 is a cent.
"""

import numpy as np

from tickstock.patterns.definition import Bools, Floats

TINY, RELATIVE = 1e-9, 1e-12
"""Rounding: far above what floats lose on prices up to a million dollars and sums of volumes, and
below what prices of 6 decimals times parameters of 3 can differ by."""


def above(a: Floats, b: Floats | float) -> Bools:
    """a > b by more than rounding; false where one is NaN."""
    return a > b + _rounding(b)


def below(a: Floats, b: Floats | float) -> Bools:
    """a < b by more than rounding; false where one is NaN."""
    return a < b - _rounding(b)


def at_least(a: Floats, b: Floats | float) -> Bools:
    """a >= b but for rounding; false where one is NaN."""
    return a >= b - _rounding(b)


def at_most(a: Floats, b: Floats | float) -> Bools:
    """a <= b but for rounding; false where one is NaN."""
    return a <= b + _rounding(b)


def _rounding(value: Floats | float) -> Floats | float:
    tolerance: Floats | float = TINY + RELATIVE * np.abs(value)
    return tolerance


def add_up(values: Floats) -> Floats:
    """The sum along time, the oldest first."""
    total: Floats = values[0]
    for row in values[1:]:
        total = total + row
    return total


def mean(values: Floats) -> Floats:
    return add_up(values) / len(values)


def trailing_ema(values: Floats, span: int, candles: int) -> Floats:
    """Exponential moving averages with smoothing 2 / (span + 1): at each candle, that of the last so
    many, which begins with the first of these.

    (length - candles + 1, ...): the first one ends with the candles-th. NaN if one of them is missing.
    """
    smoothing = 2 / (span + 1)
    kept = 1 - smoothing
    recent = candles - 1
    weighted = smoothing * _fading_sum(values, kept, recent)[1:]
    averages: Floats = weighted + kept**recent * values[: len(values) - recent]
    return averages


def _fading_sum(values: Floats, kept: float, candles: int) -> Floats:
    """At each candle, kept**n times the value n candles before, added up over so many candles."""
    # Sums of 1, 2, 4... candles, each of two of the one before; then of these what makes the number.
    total, covered = np.zeros(values.shape), 0
    power, size = values, 1
    while True:
        if candles & size:
            older = power[: len(power) - covered]
            total = older * kept**covered + total[len(total) - len(older) :]
            covered += size
        if 2 * size > candles:
            return total
        power = power[size:] + kept**size * power[: len(power) - size]
        size *= 2


def sliding_max(values: Floats, candles: int) -> Floats:
    """The highest of as many candles in a row, (length - candles + 1, ...); NaN if one is missing."""
    size = 1
    while 2 * size <= candles:
        values = np.maximum(values[: len(values) - size], values[size:])
        size *= 2
    rest = candles - size
    return np.maximum(values[: len(values) - rest], values[rest:])


def slope(values: Floats) -> Floats:
    """The slope of the least-squares line, in units of the values per candle. At least 2 candles."""
    middle = (len(values) - 1) / 2
    weights = [n - middle for n in range(len(values))]
    moment: Floats = weights[0] * values[0]
    for weight, row in zip(weights[1:], values[1:], strict=True):
        moment = moment + weight * row
    return moment / sum(weight**2 for weight in weights)


def share(part: Floats, whole: Floats | float) -> Floats:
    """part / whole, kept within 0 and 1; 0 where the whole is not above 0."""
    quotient = np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.greater(whole, 0))
    clipped: Floats = np.clip(quotient, 0, 1)
    return clipped
