"""Each of our patterns finds what its definition, in exact arithmetic, finds."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings

from tests.patterns.oracles import ORACLES, bars_of
from tests.patterns.windows import OWN, PATTERNS, Market, judge_all, markets, random_market


def test_each_has_an_oracle() -> None:
    assert sorted(ORACLES) == OWN


def expected(name: str, market: Market) -> dict[int, str]:
    bars = bars_of(market)
    numbers = {key: Fraction(str(value)) for key, value in PATTERNS[name].parameters.items()}
    found = {n: ORACLES[name](bars[: n + 1], numbers) for n in range(len(bars))}
    return {n: direction for n, direction in found.items() if direction}


def found(name: str, market: Market) -> dict[int, str]:
    return {at: hit.direction for at, hit in judge_all(name, market.candles).items()}


@pytest.mark.parametrize("name", OWN)
@settings(deadline=None, max_examples=25)
@given(market=markets())
def test_it_finds_what_its_oracle_finds(name: str, market: Market) -> None:
    assert found(name, market) == expected(name, market)


@pytest.mark.parametrize("name", OWN)
def test_these_markets_have_it_in_each_direction(name: str) -> None:
    """Otherwise the property above would say nothing."""
    counts: Counter[str] = Counter()
    wanted = {
        "Doji": 1,
        "MACrossover": 2,
        "Day1Breakout": 2,
        "OpeningRangeBreakout": 2,
        "VolumeSpike": 3,
    }
    for seed in range(60):
        market = random_market(seed, 260)
        counts.update(found(name, market).values())
    assert len(counts) == wanted.get(name, 1), counts
    assert min(counts.values()) >= 3, counts
