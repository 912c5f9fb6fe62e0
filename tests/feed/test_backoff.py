import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickstock.feed.backoff import Backoff

SETTINGS = st.tuples(
    st.floats(0.001, 100), st.floats(1, 1000), st.floats(1, 10), st.integers(0, 2**32)
)


def _ceilings(first: float, cap: float, factor: float, count: int) -> list[float]:
    ceilings = [first]
    while len(ceilings) < count:
        ceilings.append(min(cap, ceilings[-1] * factor))
    return ceilings


@settings(deadline=None)
@given(SETTINGS, st.integers(1, 60))
def test_each_wait_lies_between_the_floor_and_a_ceiling_that_grows_to_the_cap(
    settings: tuple[float, float, float, int], count: int
) -> None:
    first, times, factor, seed = settings
    backoff = Backoff(first, first * times, factor, random.Random(seed))
    waits = [backoff.next() for _ in range(count)]
    for wait, ceiling in zip(waits, _ceilings(first, first * times, factor, count), strict=True):
        assert first / 2 <= wait <= ceiling <= first * times


@settings(deadline=None)
@given(SETTINGS, st.integers(1, 60))
def test_a_reset_begins_anew(settings: tuple[float, float, float, int], count: int) -> None:
    first, times, factor, seed = settings
    backoff = Backoff(first, first * times, factor, random.Random(seed))
    for _ in range(count):
        backoff.next()
    backoff.reset()
    assert first / 2 <= backoff.next() <= first


def test_waits_are_spread_over_the_whole_range() -> None:
    backoff = Backoff(first=1.0, cap=16.0, factor=16.0, rng=random.Random(7))
    backoff.next()
    waits = [backoff.next() for _ in range(400)]
    assert min(waits) < 1.5
    assert max(waits) > 15.0


def test_clients_that_drop_together_do_not_come_back_together() -> None:
    assert len({Backoff().next() for _ in range(50)}) > 40


def test_it_never_overflows() -> None:
    backoff = Backoff(first=1.0, cap=30.0, factor=1e300)
    assert all(backoff.next() <= 30.0 for _ in range(1000))


@pytest.mark.parametrize(
    ("first", "cap", "factor"),
    [(0, 1, 2), (-1, 1, 2), (2, 1, 2), (1, 2, 0.5), (1, float("inf"), 2), (float("nan"), 1, 2)],
)
def test_settings_that_make_no_sense_are_refused(first: float, cap: float, factor: float) -> None:
    with pytest.raises(ValueError, match="back-off"):
        Backoff(first, cap, factor)
