"""Broken patterns are reported, once at length, and cost nobody else anything."""

import logging
from collections.abc import Callable

import numpy as np
import pytest

from tests.patterns.windows import Candle, as_window, chosen, series
from tickstock.patterns import Candles, Found, FoundAt, Parameters, PythonPattern, pattern
from tickstock.patterns.definition import Function
from tickstock.patterns.evaluate import Chosen, Failures, Hit, history, history_columns, live

FLAT = Candle(10, 10.5, 9.5, 10)
WINDOWS = 3


def three() -> Candles:
    """Three windows of two candles."""
    one = as_window(series([FLAT, FLAT]))
    columns = (np.repeat(column, WINDOWS, axis=1) for column in one.columns)
    return one.with_columns(columns, one.opens_at.repeat(WINDOWS), one.closes_at.repeat(WINDOWS))


def asked(function: Function, name: str = "Mine", candles: int = 1) -> Chosen:
    declared: PythonPattern = pattern(name, candles=candles)(function)
    return Chosen(declared, Parameters(), candles)


def saying(found: object) -> Chosen:
    def says(_c: Candles, _p: Parameters) -> Found | None:
        return found  # type: ignore[return-value]

    return asked(says)


def everywhere(
    where: object = (True, True, True),
    direction: object = 1,
    strength: object = (0.5, 0.5, 0.5),
    details: object = None,
) -> Found:
    return Found(
        np.array(where),
        np.array(direction),
        np.array(strength),
        {} if details is None else details,  # type: ignore[arg-type]
    )


def at(windows: object) -> FoundAt:
    return FoundAt(np.array(windows), 1, np.array(0.5), {})


def test_hits_tell_what_was_found() -> None:
    details = {"a": np.array([1.23456789, np.nan, -1e-9]), "b": np.array(7.0)}
    found = everywhere((True, True, False), [-1, 0, 1], [1 / 3, 1, 9], details)
    assert list(live([saying(found)], three(), Failures())) == [
        Hit("Mine", 0, "short", 0.333333, {"a": 1.234568, "b": 7.0}),
        Hit("Mine", 1, "neutral", 1.0, {"a": None, "b": 7.0}),
    ]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (True, "neither Found nor None"),
        (everywhere()._replace(details=[1]), "its details are [1]"),  # type: ignore[arg-type]
        (everywhere((1, 0, 1)), "where is int64 (3,), not bool (3,)"),
        (everywhere((True,)), "where is bool (1,)"),
        (everywhere(True), "where is bool ()"),
        (everywhere(direction=0.5), "not 1, -1 or 0"),
        (everywhere(direction=[1, 1]), "broadcast"),
        (everywhere(strength=[1, 1]), "broadcast"),
        (everywhere(strength=["much"] * 3), "convert"),
        (everywhere(details={1: 2.0}), "a detail is named 1"),
        (everywhere(details={"a\0": 2.0}), "a detail is named"),
        (everywhere(details={"a": "b"}), "convert"),
        (at([True, False, True]), "at is bool (3,), not numbers of windows"),
        (at([0.0, 1.0]), "at is float64 (2,), not numbers of windows"),
        (at([[0]]), "at is int64 (1, 1), not numbers of windows"),
        (at([-1]), "at does not ascend from 0 to at most 2"),
        (at([0, 3]), "at does not ascend from 0 to at most 2"),
        (at([1, 1]), "at does not ascend from 0 to at most 2"),
    ],
)
def test_nonsense_is_reported_and_stops_nothing_else(
    found: object, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    hits = list(live([saying(found), chosen("Doji")], three(), Failures()))
    assert [hit.pattern for hit in hits] == ["Doji"] * WINDOWS
    (record,) = caplog.records
    assert "pattern Mine failed on 5min candles" in record.getMessage()
    assert problem in record.getMessage()


def test_an_error_is_reported_at_length_once(caplog: pytest.LogCaptureFixture) -> None:
    def raises(_c: Candles, _p: Parameters) -> Found:
        raise ZeroDivisionError("no reason")

    failures, several = Failures(), [asked(raises), chosen("Doji")]
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        assert len(list(live(several, three(), failures))) == WINDOWS
    assert [record.levelname for record in caplog.records] == ["ERROR", "DEBUG", "DEBUG"]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]
    assert "ZeroDivisionError" in caplog.text
    list(history(several, series([FLAT, FLAT]), Failures()))
    assert caplog.records[-1].levelname == "ERROR"


@pytest.mark.parametrize(
    ("direction", "strength"),
    [([1, 2, 1], 1.0), ([1, -2, 1], 1.0), (1, [1, 1.5, 1]), (1, [1, -0.5, 1]), (1, [1, np.nan, 1])],
)
def test_nonsense_about_one_window_costs_the_others_nothing(
    direction: object, strength: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What is found in a window must not depend on those beside it."""
    found = everywhere(direction=direction, strength=strength, details={"n": np.arange(3.0)})
    hits = list(live([saying(found)], three(), Failures()))
    assert [(hit.at, hit.details) for hit in hits] == [(0, {"n": 0.0}), (2, {"n": 2.0})]
    assert "its direction is" in caplog.text


def test_nothing_found_is_no_failure() -> None:
    failures = Failures()
    assert not list(live([saying(None)], three(), failures))
    assert failures == Failures()


def test_candles_are_read_only_to_patterns(caplog: pytest.LogCaptureFixture) -> None:
    def writes(c: Candles, _p: Parameters) -> None:
        c.close[-1] = 1

    assert not list(live([asked(writes)], three(), Failures()))
    assert not list(history([asked(writes)], series([FLAT]), Failures()))
    assert caplog.text.count("ValueError: assignment destination is read-only") == 2


def lengths() -> tuple[list[tuple[int, ...]], Callable[[Candles, Parameters], None]]:
    seen: list[tuple[int, ...]] = []

    def looks(c: Candles, _p: Parameters) -> None:
        seen.append(c.close.shape)
        assert np.isnan(c.close[:-2]).all() or len(c) == 100

    return seen, looks


@pytest.mark.parametrize("candles", [1, 2, 5])
def test_windows_are_as_long_as_the_pattern_asks(candles: int) -> None:
    seen, looks = lengths()
    failures = Failures()
    list(live([asked(looks, candles=candles)], three(), failures))
    assert seen == [(candles, WINDOWS)]
    assert failures == Failures()


def test_a_history_is_judged_in_blocks() -> None:
    seen, looks = lengths()
    list(history([asked(looks, candles=100)], series([FLAT] * 10_000), Failures()))
    assert seen == [(100, 4096), (100, 4096), (100, 1808)]


def test_threads_keep_the_places_of_a_long_history() -> None:
    def each_seventh(c: Candles, _p: Parameters) -> Found:
        seventh = c.ts[-1] // 60 % 7 == 0
        return Found(seventh, 1, np.ones(seventh.shape), {"ts": c.ts[-1]})

    c = series([FLAT] * 70_000)
    asks = [asked(each_seventh, name, candles=n) for n, name in enumerate("ABC", 1)]
    found = list(history_columns(asks, c, Failures(), begins=(0, 1_000)))
    expected = (c.ts // 60 % 7 == 0).nonzero()[0]
    for name in "ABC":
        at = np.concatenate([hits.at for hits in found if hits.pattern == name])
        told = np.concatenate([hits.details["ts"] for hits in found if hits.pattern == name])
        assert np.array_equal(np.sort(at), expected)
        assert np.array_equal(c.ts[at], told)


def test_of_a_long_history_only_what_is_asked_about_is_judged() -> None:
    seen, looks = lengths()
    c = series([FLAT] * 10_000)
    list(history([asked(looks, candles=100)], c, Failures(), since=9_990))
    assert seen == [(100, 1808)]
    hits = list(history([chosen("Doji"), chosen("CDLDOJI")], c, Failures(), since=9_998))
    assert sorted(hit.at for hit in hits) == [9_998, 9_998, 9_999, 9_999]


def test_an_empty_history_has_nothing() -> None:
    empty = series([FLAT]).with_columns([np.empty(0)] * 6, np.empty(0), np.empty(0))
    assert not list(history_columns([chosen("Doji"), chosen("CDLDOJI")], empty, Failures()))
