"""Numbers of things, in words."""

import pytest

from tickstock.cli.explain import _outcome
from tickstock.counted import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 gaps"), (1, "1 gap"), (2, "2 gaps"), (1_234, "1,234 gaps")]
)
def test_counted(number: int, told: str) -> None:
    assert counted(number, "gap") == told


@pytest.mark.parametrize(
    ("returns", "told"),
    [
        ((None, None, None), "no candle after it yet"),
        ((0.01, None, None), "+1.00 % after 1 candle"),
        ((0.01, -0.02, None), "+1.00 % after 1, -2.00 % after 5 candles"),
    ],
)
def test_outcome(returns: tuple[float | None, ...], told: str) -> None:
    outcome = {f"return_{n}": value for n, value in zip((1, 5, 20), returns, strict=True)}
    assert _outcome(outcome, "neutral") == [("outcome", told)]
