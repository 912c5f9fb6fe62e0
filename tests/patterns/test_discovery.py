"""Which patterns there are: ours, and those in the operator's folder."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from tests.patterns.windows import OWN, TALIB, Candle, as_window, series
from tickstock.errors import TickstockError
from tickstock.patterns import (
    Candles,
    Found,
    Parameters,
    PythonPattern,
    SqlPattern,
    discover,
    pattern,
)
from tickstock.timeframes import TIMEFRAMES

NEVER = """
from tickstock.patterns import pattern

@pattern("{name}", candles=3, timeframes=["5min"])
def never(candles, parameters):
    \"\"\"Never there.

    More about it.
    \"\"\"
"""


OURS = sorted(p.name for p in discover())


def nothing(_c: Candles, _p: Parameters) -> Found | None:
    return None


def names(folder: Path | None = None) -> list[str]:
    return [p.name for p in discover(folder)]


def test_ours_are_there_without_a_folder() -> None:
    assert names() == OURS
    assert all(p.summary and p.source for p in discover())


def test_each_kind_is_there() -> None:
    sql = {p.name for p in discover() if isinstance(p, SqlPattern)}
    assert sql == {"GapUp", "GapDown", "InsideDay", "NR7", "High52Week", "Low52Week"}
    assert len(TALIB) == 61
    assert {"Doji", "HeadAndShoulders", "OpeningRangeBreakout"} <= set(OWN)
    assert sorted({*sql, *TALIB, *OWN}) == OURS


def test_those_of_the_folder_come_along(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NEVER.format(name="Mine"))
    (tmp_path / "another-one.py").write_text(NEVER.format(name="Also Mine"))
    (tmp_path / "steady.sql").write_text("-- Steady: no change.\n-- candles: 1\nselect 1")
    (tmp_path / "_helpers.sql").write_text("not a pattern file")
    (tmp_path / "_helpers.py").write_text("raise RuntimeError('not a pattern file')")
    (tmp_path / "notes.txt").write_text("not Python")
    found = discover(tmp_path)
    assert [p.name for p in found] == sorted([*OURS, "Also Mine", "Mine", "Steady"])
    mine = next(p for p in found if p.name == "Mine")
    assert isinstance(mine, PythonPattern)
    assert (mine.timeframes, mine.summary) == (("5min",), "Never there.")
    assert mine.candles(mine.parameters, "5min") == 3
    assert mine.function(as_window(series([Candle(1, 1, 1, 1)])), Parameters()) is None


def test_files_are_modules_like_any_other(tmp_path: Path) -> None:
    """Dataclasses with postponed annotations look their module up by name."""
    (tmp_path / "modern.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "@dataclass\n"
        "class Settings:\n"
        "    tolerance: ClassVar[float] = 0.1\n" + NEVER.format(name="Modern")
    )
    assert "Modern" in names(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:", "SyntaxError"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("raise SystemExit(2)", "SystemExit"),
        (NEVER.format(name="X").replace("5min", "7min"), "pattern X: no timeframe 7min"),
        (NEVER.format(name="X").replace("=3", "=0"), "pattern X: candles is 0, not 1 to"),
        (NEVER.format(name="X").replace("=3", "=2.5"), "candles is 2.5, not a whole number"),
        (
            NEVER.format(name="X").replace("=3", "=lambda p, t: 4 * p.n, parameters={'n': 2}"),
            "pattern X: candles is 8.0, not a whole number",
        ),
        (NEVER.format(name="X").replace("=3", "=3, parameters={5: 1}"), "a parameter is named 5"),
        (NEVER.format(name="X").replace("=3", "=3, source=None"), "its source is None"),
        (NEVER.format(name="X").replace('["5min"]', "[]"), "pattern X: no timeframe is named"),
        (
            NEVER.format(name="X").replace('["5min"]', '"5min"'),
            "pattern X: timeframes is '5min', not a list: write ['5min']",
        ),
        (NEVER.format(name="X").replace('"X"', "5"), "a pattern is named 5"),
        (NEVER.format(name=""), "a pattern is named ''"),
        (NEVER.format(name="X" * 9_000), "1 to 100 printable characters expected"),
    ],
)
def test_a_broken_file_is_reported_and_left_out(
    text: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "good.py").write_text(NEVER.format(name="Good"))
    assert names(tmp_path) == sorted([*OURS, "Good"])
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert str(tmp_path / "broken.py") in record.getMessage()
    assert reason in record.getMessage()


@pytest.mark.parametrize("taken", ["Doji", "Mine"])
def test_of_two_patterns_of_one_name_the_later_is_reported_and_left_out(
    taken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(NEVER.format(name="Mine"))
    (tmp_path / "other.py").write_text(NEVER.format(name=taken).replace("=3", "=7"))
    (tmp_path / "sound.py").write_text(NEVER.format(name="Sound"))
    found = {p.name: p for p in discover(tmp_path)}
    assert sorted(found) == sorted([*OURS, "Mine", "Sound"])
    assert found[taken].candles(found[taken].parameters, "5min") != 7
    (record,) = caplog.records
    assert re.fullmatch(
        rf"pattern left out: {tmp_path / 'other.py'}: .*\.py has a pattern named {taken} already:"
        r" rename this one",
        record.getMessage(),
    )


def test_of_python_and_sql_the_pattern_in_python_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.sql").write_text("-- Mine: no change.\n-- candles: 1\nselect 1")
    (tmp_path / "b.py").write_text(NEVER.format(name="Mine"))
    assert [p for p in discover(tmp_path) if isinstance(p, SqlPattern) and p.name == "Mine"] == []
    (record,) = caplog.records
    assert f"left out: {tmp_path / 'a.sql'}: {tmp_path / 'b.py'} has" in record.getMessage()


def test_building_upon_ours_is_no_duplicate(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tickstock.patterns.doji import doji\n")
    assert names(tmp_path) == OURS


def test_patterns_may_come_as_a_tuple(tmp_path: Path) -> None:
    text = NEVER.format(name="One") + "both = (never, pattern('Two', candles=1)(never.function))\n"
    (tmp_path / "several.py").write_text(text)
    assert set(names(tmp_path)) - set(OURS) == {"One", "Two"}


@pytest.mark.parametrize("text", ["select 1", "-- Flat: no change.\nselect 1", "\udcff"])
def test_a_broken_sql_file_is_reported_and_left_out(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.sql").write_bytes(text.encode(errors="surrogateescape"))
    assert names(tmp_path) == OURS
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert f"{tmp_path / 'broken.sql'}, line 1: " in record.getMessage()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TickstockError, match=rf"no folder {tmp_path / 'gone'}: create it"):
        discover(tmp_path / "gone")


def test_patterns_are_for_all_timeframes_unless_they_say_so() -> None:
    assert pattern("X", candles=1)(nothing).timeframes == TIMEFRAMES


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1"])
def test_a_parameter_is_a_finite_number(value: float) -> None:
    with pytest.raises(ValueError, match=r"pattern X: most is .*, not a"):
        pattern("X", candles=1, parameters={"most": value})(nothing)


def test_candles_may_depend_on_parameters_and_timeframe() -> None:
    found = pattern(
        "X",
        candles=lambda p, timeframe: p.whole("days") * (2 if timeframe == "1hour" else 1),
        parameters={"days": 3},
    )(nothing)
    assert found.candles(found.parameters, "daily") == 3
    assert found.candles(found.with_defaults({"days": 4}), "1hour") == 8
    for days in (0, -1, 2.5, 5000):
        with pytest.raises(ValueError, match=r"days is|candles is"):
            found.candles(found.with_defaults({"days": days}), "daily")


def test_a_number_of_candles_may_come_from_numpy() -> None:
    found = pattern("X", candles=lambda p, _: int(p.n) * np.int64(2), parameters={"n": 3})(nothing)  # type: ignore[arg-type,return-value]
    assert type(found.candles(found.parameters, "daily")) is int


def test_a_number_of_candles_that_fails_is_told() -> None:
    found = pattern("X", candles=lambda p, _: int(6 / p.share), parameters={"share": 2})(nothing)
    with pytest.raises(ValueError, match="pattern X: its number of candles fails with ZeroDiv"):
        found.candles(found.with_defaults({"share": 0}), "daily")


def test_parameters_are_read_by_name() -> None:
    parameters = Parameters(most=0.5)
    assert parameters.most == parameters["most"] == 0.5
    with pytest.raises(AttributeError, match="no parameter least"):
        _ = parameters.least
