"""One or more examples of each of our patterns, to be checked by eye, and what just misses it."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from tests.patterns.windows import OWN, Candle, judge

# Candles are (open, high, low, close) and (…, volume); the last one is judged.


def told(
    name: str, *candles: Candle, end: str = "2025-11-24 12:00", **parameters: float
) -> str | None:
    hit = judge(name, candles, end=end, **parameters)
    return hit and hit.direction


DOJIS = [
    (Candle(10.00, 10.50, 9.50, 10.00), True),  # no body
    (Candle(10.00, 10.50, 9.50, 10.10), True),  # exactly a tenth, up
    (Candle(10.10, 10.50, 9.50, 10.00), True),  # exactly a tenth, down
    (Candle(10.03, 10.20, 10.00, 10.05), True),  # too, though not in floats
    (Candle(10.00, 10.50, 9.50, 10.11), False),
    (Candle(10.11, 10.50, 9.50, 10.00), False),
    (Candle(10.00, 10.50, 9.50, 10.1001), False),
    # The range is at least a cent, also where floats make it 0.00999…
    (Candle(10.01, 10.01, 10.00, 10.01), True),
    (Candle(33.33, 33.34, 33.33, 33.33), True),
    (Candle(1.10, 1.11, 1.10, 1.10), True),
    (Candle(700000.10, 700000.11, 700000.10, 700000.10), True),
    (Candle(2500.07, 2500.08, 2500.07, 2500.08), False),  # all of it body
    (Candle(10.0, 10.0099, 10.0, 10.0), False),
    (Candle(10.00, 10.00, 10.00, 10.00), False),
    # A tenth of a range of a cent, in tenths of a cent.
    (Candle(0.500, 0.510, 0.500, 0.501), True),
    (Candle(0.500, 0.510, 0.500, 0.502), False),
]


@pytest.mark.parametrize(("candle", "fits"), DOJIS)
def test_doji(candle: Candle, fits: bool) -> None:
    assert told("Doji", candle) == ("neutral" if fits else None)


def test_doji_tells_body_and_range() -> None:
    hit = judge("Doji", [Candle(10.00, 10.50, 9.50, 10.10)])
    assert hit
    assert (hit.strength, hit.details) == (0.9, {"body": 0.1, "range": 1.0})
    assert told("Doji", Candle(10.00, 10.50, 9.50, 10.00), min_range=2) is None
    assert told("Doji", Candle(10.00, 10.50, 9.50, 10.40), max_body=0.4) == "neutral"
    flat = Candle(10.00, 10.00, 10.00, 10.00)
    assert told("Doji", flat, min_range=0) is None, "a candle of one price says nothing"


def steps(first: float, step: float, number: int = 10) -> list[Candle]:
    """Closes that go evenly, each from the close before."""
    closes = [round(first + step * n, 2) for n in range(number)]
    return [Candle(c - step, max(c, c - step), min(c, c - step), c) for c in closes]


@pytest.mark.parametrize(
    ("candle", "fits"),
    [
        (Candle(9.90, 10.00, 9.70, 10.00), True),  # body 0.10, below it exactly twice as much
        (Candle(10.00, 10.00, 9.70, 9.90), True),  # its colour does not matter
        (Candle(9.90, 10.00, 9.71, 10.00), False),  # a cent less below
        (Candle(9.90, 10.09, 9.60, 10.00), True),  # 0.09 above
        (Candle(9.90, 10.10, 9.60, 10.00), False),  # as much above as body
        (Candle(9.99, 10.00, 9.00, 10.00), True),  # a body of a cent
        (Candle(10.00, 10.00, 9.00, 10.00), False),  # no body
    ],
)
def test_hammer_after_a_fall_and_hanging_man_after_a_rise(candle: Candle, fits: bool) -> None:
    fall, rise, flat = steps(11.00, -0.10), steps(9.00, 0.10), steps(10.00, 0)
    assert told("Hammer", *fall, candle) == ("long" if fits else None)
    assert told("HangingMan", *rise, candle) == ("short" if fits else None)
    for before in (rise, flat, fall[1:]):
        assert told("Hammer", *before, candle) is None
    for before in (fall, flat, rise[1:]):
        assert told("HangingMan", *before, candle) is None


def test_a_hammer_is_as_strong_as_its_shadow_is_long() -> None:
    hit = judge("Hammer", [*steps(11.00, -0.10), Candle(9.90, 10.00, 9.60, 10.00)])
    assert hit
    assert hit.strength == 0.75  # 0.30 of 0.40
    assert hit.details == {
        "body": 0.1,
        "lower_shadow": 0.3,
        "upper_shadow": 0.0,
        "mean_before": 10.55,  # of 11.00, 10.90 … 10.10
    }


@pytest.mark.parametrize(
    ("close", "top", "bottom"),
    [
        (10.20, "long", None),
        (10.18, "long", None),  # exactly a tenth of 0.20 away
        (10.17, None, None),
        (10.03, None, None),
        (10.02, None, "short"),
        (10.00, None, "short"),
    ],
)
def test_closed_in_range(close: float, top: str | None, bottom: str | None) -> None:
    candle = Candle(10.10, 10.20, 10.00, close)
    assert told("ClosedInTopRange", candle) == top
    assert told("ClosedInBottomRange", candle) == bottom


@pytest.mark.parametrize(
    ("name", "close"), [("ClosedInTopRange", 10.19), ("ClosedInBottomRange", 10.01)]
)
def test_closed_in_range_tells_how_near(name: str, close: float) -> None:
    hit = judge(name, [Candle(10.10, 10.20, 10.00, close)])
    assert hit
    assert (hit.strength, hit.details) == (0.95, {"range": 0.2, "distance": 0.01})


def test_closed_in_range_needs_a_range() -> None:
    assert told("ClosedInTopRange", Candle(10.00, 10.02, 10.00, 10.02)) == "long"
    assert told("ClosedInTopRange", Candle(10.00, 10.01, 10.00, 10.01)) is None
    assert told("ClosedInBottomRange", Candle(10.01, 10.01, 10.00, 10.00)) is None


FALLING, RISING = Candle(10.20, 10.30, 9.90, 10.00), Candle(10.00, 10.30, 9.90, 10.20)


@pytest.mark.parametrize(
    ("before", "candle", "bullish", "bearish"),
    [
        (FALLING, Candle(10.00, 10.50, 9.90, 10.22), "long", None),  # exactly 1.1 times
        (FALLING, Candle(10.00, 10.50, 9.90, 10.21), None, None),
        (FALLING, Candle(9.90, 10.50, 9.90, 10.20), "long", None),
        (FALLING, Candle(9.90, 10.50, 9.90, 10.19), None, None),  # does not reach its open
        (FALLING, Candle(10.01, 10.50, 9.90, 10.50), None, None),  # begins within its body
        (RISING, Candle(9.90, 10.50, 9.90, 10.30), None, None),  # of the same colour
        (RISING, Candle(10.20, 10.50, 9.90, 9.98), None, "short"),  # exactly 1.1 times
        (RISING, Candle(10.20, 10.50, 9.90, 9.99), None, None),
        (Candle(10, 10, 10, 10), Candle(9.90, 10.50, 9.90, 10.30), None, None),  # no body to hold
    ],
)
def test_engulfing(
    before: Candle, candle: Candle, bullish: str | None, bearish: str | None
) -> None:
    assert told("BullishEngulfing", before, candle) == bullish
    assert told("BearishEngulfing", before, candle) == bearish


def test_engulfing_is_stronger_the_larger_the_body() -> None:
    hit = judge("BullishEngulfing", [FALLING, Candle(9.90, 10.70, 9.90, 10.70)])
    assert hit
    assert (hit.strength, hit.details) == (0.75, {"body": 0.8, "body_before": 0.2})


def path(*points: tuple[int, float]) -> list[Candle]:
    """Closes on straight lines from point to point (candle, price), shadows of two cents."""
    closes = []
    for (start, a), (end, b) in pairwise(points):
        closes += [round(a + (b - a) * n / (end - start), 2) for n in range(end - start)]
    closes.append(points[-1][1])
    opens = [closes[0], *closes[:-1]]
    return [
        Candle(o, round(max(o, c) + 0.02, 2), round(min(o, c) - 0.02, 2), c)
        for o, c in zip(opens, closes, strict=True)
    ]


def upside_down(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(at, 200 - price) for at, price in points]


#        108              head, 7 above the neckline
#   104      104.1        shoulders
#      101 101.2          troughs: the neckline is 101.1, less two cents of shadow
# 100             100.5   the first close below it
SHOULDERS = [
    *[(0, 100.0), (10, 104.0), (16, 101.0), (25, 108.0), (33, 101.2), (40, 104.1)],
    *[(48, 101.3), (49, 100.5)],
]


def bent(points: list[tuple[int, float]], at: int, price: float) -> list[tuple[int, float]]:
    """The same path with another price at one of its points."""
    return [(n, price if n == at else p) for n, p in points]


@pytest.mark.parametrize(
    ("points", "fits"),
    [
        (SHOULDERS, True),
        (bent(SHOULDERS, 40, 105.7), True),  # 1.7 from level, of a quarter of about 6.9
        (bent(SHOULDERS, 40, 105.8), False),
        # The neckline is at 100.28, 7.74 below the head; troughs are 1.8 apart, of a quarter of that.
        (bent(bent(SHOULDERS, 16, 99.4), 49, 99.0), True),
        (bent(bent(SHOULDERS, 16, 98.9), 49, 99.0), False),
        (bent(SHOULDERS, 25, 104.05), False),  # no head: the right shoulder is as high
        (bent(SHOULDERS, 49, 101.08), False),  # at the neckline, not below
        (bent(SHOULDERS, 49, 101.07), True),
        (bent(SHOULDERS, 48, 101.0), False),  # the close before was below already
        (SHOULDERS[1:], False),  # ten candles are missing
    ],
)
def test_head_and_shoulders(points: list[tuple[int, float]], fits: bool) -> None:
    assert told("HeadAndShoulders", *path(*points)) == ("short" if fits else None)
    mirrored = path(*upside_down(points))
    assert told("InverseHeadAndShoulders", *mirrored) == ("long" if fits else None)
    assert told("InverseHeadAndShoulders", *path(*points)) is None
    assert told("HeadAndShoulders", *mirrored) is None


def test_head_and_shoulders_tell_their_prices() -> None:
    hit = judge("HeadAndShoulders", path(*SHOULDERS))
    assert hit
    assert hit.details == {"left": 104.02, "head": 108.02, "right": 104.12, "neckline": 101.08}
    assert hit.strength == pytest.approx(1 - 0.10 / 6.94, abs=1e-6)
    hit = judge("InverseHeadAndShoulders", path(*upside_down(SHOULDERS)))
    assert hit
    assert hit.details == {"left": 95.98, "head": 91.98, "right": 95.88, "neckline": 98.92}


#   105      104.9        two tops
#       102               the low between, less two cents of shadow
# 100            101.5    the first close below it
TOPS = [(0, 100.0), (8, 105.0), (14, 102.0), (21, 104.9), (28, 102.2), (29, 101.5)]


@pytest.mark.parametrize(
    ("points", "fits"),
    [
        (TOPS, True),
        (bent(TOPS, 21, 105.3), True),  # the second is the higher one
        (bent(TOPS, 21, 104.6), True),  # 0.4 from level, of 15% of 2.84
        (bent(TOPS, 21, 104.5), False),
        (bent(TOPS, 29, 101.98), False),  # at the low, not below
        (bent(TOPS, 29, 101.97), True),
        (bent(TOPS, 28, 101.9), False),  # the close before was below already
        (bent(TOPS, 0, 106.0), False),  # a fall with two stops: the window was higher before
        (TOPS[1:], False),  # eight candles are missing
    ],
)
def test_double_top(points: list[tuple[int, float]], fits: bool) -> None:
    assert told("DoubleTop", *path(*points)) == ("short" if fits else None)
    mirrored = path(*upside_down(points))
    assert told("DoubleBottom", *mirrored) == ("long" if fits else None)
    assert told("DoubleBottom", *path(*points)) is None
    assert told("DoubleTop", *mirrored) is None


def test_double_top_tells_its_prices() -> None:
    hit = judge("DoubleTop", path(*TOPS))
    assert hit
    assert hit.details == {"first": 105.02, "second": 104.92, "neckline": 101.98}
    assert hit.strength == pytest.approx(1 - 0.10 / 2.99, abs=1e-6)
    low = path(*((n, price / 10) for n, price in TOPS))  # of $10: five cents are half a percent
    assert told("DoubleTop", *low) == "short"
    assert told("DoubleTop", *path(*TOPS), min_height=0.05) is None


def at_close(close: float, *, volume: float = 100) -> Candle:
    return Candle(close, close + 0.5, close - 0.5, close, volume)


def test_ma_crossover() -> None:
    """104 candles at 10: both averages are 10. Then the fast one leaves first."""
    flat = [at_close(10)] * 104
    hit = judge("MACrossover", [*flat, at_close(11)])
    assert hit
    assert hit.direction == "long"
    # 2/13 and 2/27 of the way; their distance is 0.08 of a usual range of 1.
    assert hit.details == {"fast": 10.153846, "slow": 10.074074}
    assert hit.strength == 0.079772
    wide = [Candle(10, 12, 8, 10)] * 13
    hit = judge("MACrossover", [*flat[:-13], *wide, at_close(11)])
    assert hit
    assert hit.strength == 0.031909, (
        "of 26 candles, 13 of which have four times the range: 2.5 of it"
    )
    assert told("MACrossover", *flat, at_close(9)) == "short"
    assert told("MACrossover", *flat, at_close(10)) is None
    assert told("MACrossover", *flat[1:], at_close(11), at_close(11)) is None, "crossed before"
    assert told("MACrossover", *flat[1:], at_close(11)) is None, "a candle too few"
    assert told("MACrossover", *flat[:20], at_close(11), fast=2, slow=5) == "long"


# The last of these begins at 10:00 New York, 5 minutes each: 09:20 and 09:25 are before the session.
MORNING = [
    Candle(10, 19.00, 1.00, 10),  # 09:20
    Candle(10, 19.00, 1.00, 10),
    Candle(10, 10.50, 9.50, 10.20),  # 09:30
    Candle(10, 10.40, 9.60, 10.40),
    Candle(10, 10.30, 9.70, 10.10),
    Candle(10, 10.50, 9.70, 10.10),
    Candle(10, 10.20, 9.60, 10.10),
    Candle(10, 10.20, 9.80, 10.10),  # 09:55
]


def at_ten(name: str, candle: Candle, **parameters: float) -> str | None:
    return told(name, *MORNING, candle, end="2025-11-24 10:00", **parameters)


def test_high_and_low_of_day() -> None:
    assert at_ten("HighOfDay", Candle(10, 10.51, 9.90, 10)) == "long"
    assert at_ten("HighOfDay", Candle(10, 10.50, 9.90, 10)) is None, "as high as before"
    assert at_ten("LowOfDay", Candle(10, 10.10, 9.49, 10)) == "short"
    assert at_ten("LowOfDay", Candle(10, 10.10, 9.50, 10)) is None
    hit = judge("HighOfDay", [*MORNING, Candle(10, 10.75, 9.90, 10)], end="2025-11-24 10:00")
    assert hit
    assert (hit.strength, hit.details) == (0.25, {"high": 10.75, "broken": 10.5})
    flat = Candle(10, 10, 10, 10)
    hit = judge("HighOfDay", [flat, Candle(10, 10.01, 10, 10)], end="2025-11-24 09:35")
    assert hit
    assert hit.strength == 0, "there is no range to measure by"


@pytest.mark.parametrize(
    "end", ["2025-11-24 09:30", "2025-11-24 09:25", "2025-11-24 16:00", "2025-11-25 04:00"]
)
def test_high_of_day_is_for_the_session_after_its_first_candle(end: str) -> None:
    assert told("HighOfDay", *MORNING, Candle(10, 99, 0.5, 10), end=end) is None
    assert told("LowOfDay", *MORNING, Candle(10, 99, 0.5, 10), end=end) is None


def test_high_of_day_knows_the_whole_day() -> None:
    """At 15:55 the first candle of the day is 77 back, and counts."""
    rest = [Candle(10, 10.10, 9.90, 10)] * 76
    first, last = Candle(10, 11, 9, 10), Candle(10, 10.90, 9.10, 10)
    assert told("HighOfDay", first, *rest, last, end="2025-11-24 15:55") is None
    assert told("HighOfDay", *rest, last, end="2025-11-24 15:55") == "long"


def test_opening_range_breakout() -> None:
    """The range of the first 30 minutes is 9.50 to 10.50."""
    assert at_ten("OpeningRangeBreakout", Candle(10, 10.80, 9.90, 10.51)) == "long"
    assert at_ten("OpeningRangeBreakout", Candle(10, 10.80, 9.90, 10.50)) is None
    assert at_ten("OpeningRangeBreakout", Candle(10, 10.80, 9.20, 9.49)) == "short"
    up, down = Candle(10, 10.80, 9.90, 10.60), Candle(10, 10.80, 9.20, 9.40)
    later = "2025-11-24 10:05"
    assert told("OpeningRangeBreakout", *MORNING, up, up, end=later) is None, "the second close"
    assert told("OpeningRangeBreakout", *MORNING, up, down, end=later) is None, "once a day"
    assert told("OpeningRangeBreakout", *MORNING, MORNING[-1], down, end=later) == "short"
    assert told("OpeningRangeBreakout", *MORNING[1:], up, end="2025-11-24 09:55") is None, "early"
    # Of the first 15 minutes the range is the same; 10:00 is a later candle then as well.
    assert at_ten("OpeningRangeBreakout", up, minutes=15) == "long"
    assert at_ten("OpeningRangeBreakout", up, minutes=35) is None
    hit = judge("OpeningRangeBreakout", [*MORNING, up], end="2025-11-24 10:00")
    assert hit
    assert (hit.strength, hit.details) == (0.1, {"range_high": 10.5, "range_low": 9.5})


QUIET = Candle(10.00, 10.10, 9.90, 10.00, 100)
"""A candle as all before it: high 10.10, low 9.90, 100 shares."""
UP = Candle(10.00, 10.20, 10.00, 10.11, 151)
"""Closes above them, on more than 1.5 times their volume."""
DOWN = Candle(10.00, 10.00, 9.80, 9.89, 151)


def day1(*candles: Candle, end: str = "2025-11-24 10:00") -> str | None:
    return told("Day1Breakout", *candles, end=end)


def test_day1_breakout() -> None:
    assert day1(*[QUIET] * 50, UP) == "long"
    assert day1(*[QUIET] * 50, DOWN) == "short"
    hit = judge("Day1Breakout", [*[QUIET] * 50, UP._replace(volume=400)], end="2025-11-24 10:00")
    assert hit
    assert hit.strength == 0.75
    assert hit.details == {"broken": 10.1, "volume": 400.0, "mean_volume": 100.0}


@pytest.mark.parametrize("close", [10.10, 9.90, 10.00])
def test_a_close_at_the_extreme_breaks_nothing(close: float) -> None:
    assert day1(*[QUIET] * 50, Candle(10, 10.30, 9.70, close, 1000)) is None


@pytest.mark.parametrize(
    ("volume", "usual", "fits"),
    [
        (151, 100, True),
        (150.01, 100, True),
        (150, 100, False),  # exactly 1.5 times
        (149, 100, False),
        (0.15, 0.1, False),  # exactly 1.5 times, in fractions that floats do not hit
        (0.45, 0.3, False),
        (0.151, 0.1, True),
        (0, 0, False),
        (1, 0, True),
    ],
)
def test_day1_breakout_needs_volume(volume: float, usual: float, fits: bool) -> None:
    before = [QUIET._replace(volume=usual)] * 50
    assert (day1(*before, UP._replace(volume=volume)) is not None) == fits


def test_day1_breakout_looks_at_exactly_so_many_candles() -> None:
    busy = QUIET._replace(volume=10_000)
    assert day1(busy, *[QUIET] * 50, UP), "the 51st candle before is not in the mean"
    assert day1(busy, *[QUIET] * 49, UP) is None, "the 50th is"
    assert day1(*[QUIET] * 49, UP) is None, "fifty are needed"
    for extreme, breakout in ((QUIET._replace(high=10.5), UP), (QUIET._replace(low=9.5), DOWN)):
        assert day1(*[QUIET] * 29, extreme, *[QUIET] * 20, breakout)
        assert day1(*[QUIET] * 30, extreme, *[QUIET] * 19, breakout) is None
        assert day1(*[QUIET] * 49, extreme, breakout) is None


@pytest.mark.parametrize("day", ["2025-11-24", "2025-07-01", "2025-03-10", "2025-11-03"])
@pytest.mark.parametrize(
    ("clock", "fits"),
    [("09:25", False), ("09:30", True), ("11:55", True), ("12:00", False), ("15:00", False)],
)
def test_the_morning_is_that_of_new_york(day: str, clock: str, fits: bool) -> None:
    """Winter, summer, and the first days of both."""
    assert (day1(*[QUIET] * 50, UP, end=f"{day} {clock}") is not None) == fits


def test_trending() -> None:
    """Ten closes a cent and a half apart at about 10: 0.15% a candle."""
    flat, up = [at_close(10.00)] * 10, [at_close(10 + 0.015 * n) for n in range(1, 11)]
    found = [n for n in range(1, 11) if told("TrendingUp", *flat, *up[:n])]
    assert found == [6], "it begins once"
    hit = judge("TrendingUp", [*flat, *up[:6]])
    assert hit
    # Cents and a half above 10: 0 0 0 0 1 2 3 4 5 6, each times its distance from the middle (-4.5 …
    # 4.5), are 59.5; of 82.5, the sum of the squared distances. Before: 47.5 of 82.5.
    assert hit.details == {"slope": 0.010818, "limit": 0.010032, "slope_before": 0.008636}
    assert 0.8 < hit.strength < 1
    straight = [at_close(10.00)] * 1 + [at_close(10 + 0.05 * n) for n in range(10)]
    hit = judge("TrendingUp", straight, min_slope=0.0048)
    assert hit
    assert hit.strength == 1, "ten closes on a line"
    down = [at_close(10 - 0.015 * n) for n in range(1, 11)]
    assert [n for n in range(1, 11) if told("TrendingDown", *flat, *down[:n])] == [6]
    assert told("TrendingDown", *flat, *up[:6]) is None
    assert told("TrendingUp", *flat[4:], *up[:4]) is None, "eleven candles are needed"


@pytest.mark.parametrize(
    ("candle", "direction"),
    [
        (Candle(10, 11, 9, 10.5, 300), "long"),  # exactly three times
        (Candle(10, 11, 9, 9.5, 300), "short"),
        (Candle(10, 11, 9, 10, 300), "neutral"),
        (Candle(10, 11, 9, 10.5, 299.9), None),
    ],
)
def test_volume_spike(candle: Candle, direction: str | None) -> None:
    assert told("VolumeSpike", *[QUIET] * 20, candle) == direction
    assert told("VolumeSpike", *[QUIET] * 19, candle) is None


def test_volume_spike_tells_volumes() -> None:
    hit = judge("VolumeSpike", [*[QUIET] * 20, Candle(10, 11, 9, 10.5, 1000)])
    assert hit
    assert (hit.strength, hit.details) == (0.9, {"volume": 1000.0, "mean_volume": 100.0})
    silent = QUIET._replace(volume=0)
    assert told("VolumeSpike", *[silent] * 21) is None, "nothing is not three times nothing"


@pytest.mark.parametrize("name", OWN)
def test_a_short_history_is_no_failure(name: str) -> None:
    for size in range(1, 12):
        judge(name, [QUIET] * size)  # asserts that it did not fail
