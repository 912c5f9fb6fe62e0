"""Settings: who is asked where, with what; and what is said about those that can't be obeyed."""

import pytest

from tickstock.patterns import discover
from tickstock.patterns.settings import Setting, choose
from tickstock.timeframes import TIMEFRAMES

PATTERNS = discover()


def asked(*settings: Setting, name: str) -> dict[str, dict[str, float]]:
    """Parameters by timeframe."""
    choice = choose(PATTERNS, settings)
    assert choice.problems == []
    return {
        timeframe: dict(each.parameters)
        for timeframe, several in choice.chosen.items()
        for each in several
        if each.pattern.name == name
    }


HIGH: dict[str, dict[str, float]] = {"5min": {}, "15min": {}, "30min": {}}
SPIKE = {"mean_of": 20.0, "min_volume": 3.0}


def test_without_settings_patterns_are_asked_where_they_apply() -> None:
    choice = choose(PATTERNS, [])
    assert tuple(choice.chosen) == TIMEFRAMES
    assert asked(name="HighOfDay") == HIGH
    assert asked(name="VolumeSpike") == dict.fromkeys(TIMEFRAMES, SPIKE)
    assert asked(name="GapUp") == {"daily": {"min_gap": 0.02}}


def test_a_row_for_all_timeframes() -> None:
    assert asked(Setting("HighOfDay", None, False, {}), name="HighOfDay") == {}
    louder = Setting("VolumeSpike", None, True, {"min_volume": 5})
    expected = dict.fromkeys(TIMEFRAMES, SPIKE | {"min_volume": 5.0})
    assert asked(louder, name="VolumeSpike") == expected
    assert asked(Setting("HighOfDay", None, True, {}), name="HighOfDay") == HIGH, "not everywhere"


def test_a_row_for_one_timeframe_counts_there_instead() -> None:
    off = Setting("HighOfDay", None, False, {})
    assert asked(off, Setting("HighOfDay", "5min", True, {}), name="HighOfDay") == {"5min": {}}
    assert asked(Setting("HighOfDay", "1min", True, {}), name="HighOfDay") == HIGH | {"1min": {}}
    louder = Setting("VolumeSpike", None, True, {"min_volume": 5})
    one = Setting("VolumeSpike", "5min", True, {"mean_of": 10})
    found = asked(louder, one, name="VolumeSpike")
    assert found["5min"] == {"mean_of": 10.0, "min_volume": 3.0}
    assert found["1min"] == {"mean_of": 20.0, "min_volume": 5.0}


def test_the_window_is_that_of_the_parameters() -> None:
    choice = choose(PATTERNS, [Setting("VolumeSpike", "5min", True, {"mean_of": 10})])
    (spike,) = (c for c in choice.chosen["5min"] if c.pattern.name == "VolumeSpike")
    (high,) = (c for c in choice.chosen["5min"] if c.pattern.name == "HighOfDay")
    assert (spike.candles, high.candles) == (11, 78)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (Setting("Dojo", None, True, {}), "setting of Dojo: there is no such pattern"),
        (
            Setting("Doji", "7min", True, {}),
            "setting of Doji on 7min: no timeframe 7min (there are: 1min,",
        ),
        (
            Setting("Doji", None, True, {"body": 1}),
            "setting of Doji on all timeframes: pattern Doji has no parameter body"
            " (it has: max_body, min_range)",
        ),
        (Setting("HighOfDay", None, True, {"a": 1}), "has no parameter a (it has: none)"),
        (Setting("Doji", "5min", True, {"max_body": float("nan")}), "not a finite number"),
        (Setting("VolumeSpike", "5min", True, {"mean_of": 0}), "mean_of is 0, it must be a whole"),
        (Setting("VolumeSpike", "5min", True, {"mean_of": 9999}), "candles is 10000, not 1 to"),
        (Setting("MACrossover", None, True, {"fast": 0}), "fast is 0, it must be a whole number"),
        (Setting("DoubleTop", "5min", True, {"window": 6}), "more than twice span (3)"),
        (Setting("HighOfDay", "daily", True, {}), "candles of daily do not divide the session"),
    ],
)
def test_what_cannot_be_obeyed_is_told_and_has_no_effect(setting: Setting, problem: str) -> None:
    choice = choose(PATTERNS, [setting])
    (told,) = choice.problems
    assert problem in told
    assert choice.chosen == choose(PATTERNS, []).chosen


def test_the_second_of_two_rows_is_told() -> None:
    twice = [Setting("Doji", None, False, {}), Setting("Doji", None, True, {})]
    choice = choose(PATTERNS, twice)
    assert choice.problems == ["two settings for Doji on all timeframes"]
    assert not any(c.pattern.name == "Doji" for c in choice.chosen["5min"])
