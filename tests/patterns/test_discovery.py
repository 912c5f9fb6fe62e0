"""Which patterns there are: ours, and those in the operator's folder."""

import logging
from pathlib import Path

import pytest

from tests.patterns.windows import Candle, window
from tickstock.errors import TickstockError
from tickstock.patterns import discover, pattern
from tickstock.timeframes import TIMEFRAMES

NEVER = """
from tickstock.patterns import pattern

@pattern("{name}", candles=3, timeframes=["5min"])
def never(window):
    \"\"\"Never there.

    More about it.
    \"\"\"
"""


def names(folder: Path | None = None) -> list[str]:
    return [p.name for p in discover(folder)]


def test_ours_are_there_without_a_folder() -> None:
    assert names() == ["Day1Breakout", "Doji"]
    assert all(p.summary for p in discover())


def test_those_of_the_folder_come_along(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NEVER.format(name="Mine"))
    (tmp_path / "another-one.py").write_text(NEVER.format(name="Also Mine"))
    (tmp_path / "_helpers.py").write_text("raise RuntimeError('not a pattern file')")
    (tmp_path / "notes.txt").write_text("not Python")
    found = discover(tmp_path)
    assert [p.name for p in found] == ["Also Mine", "Day1Breakout", "Doji", "Mine"]
    mine = found[-1]
    assert (mine.candles, mine.timeframes, mine.summary) == (3, ("5min",), "Never there.")
    assert mine.function(window([Candle(1, 1, 1, 1)])) is None


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
        (NEVER.format(name="X").replace("=3", "=0"), "pattern X: candles is 0"),
    ],
)
def test_a_broken_file_is_reported_and_left_out(
    text: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "good.py").write_text(NEVER.format(name="Good"))
    assert names(tmp_path) == ["Day1Breakout", "Doji", "Good"]
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert str(tmp_path / "broken.py") in record.getMessage()
    assert reason in record.getMessage()


@pytest.mark.parametrize("taken", ["Doji", "Mine"])
def test_two_patterns_of_one_name_are_refused(taken: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NEVER.format(name="Mine"))
    (tmp_path / "other.py").write_text(NEVER.format(name=taken))
    with pytest.raises(
        TickstockError, match=rf"two patterns are named {taken}, in .*: rename"
    ) as error:
        discover(tmp_path)
    assert str(tmp_path / "other.py") in error.value.message


def test_building_upon_ours_is_no_duplicate(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tickstock.patterns.doji import doji\n")
    assert names(tmp_path) == ["Day1Breakout", "Doji"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TickstockError, match=rf"no folder {tmp_path / 'gone'}: create it"):
        discover(tmp_path / "gone")


def test_patterns_are_for_all_timeframes_unless_they_say_so() -> None:
    assert pattern("X", candles=1)(lambda _: None).timeframes == TIMEFRAMES


def test_a_window_is_cut_to_its_latest_candles() -> None:
    candles = [Candle(n, n, n, n, n) for n in range(1, 6)]
    whole = window(candles)
    assert len(whole) == 5
    assert whole.last(2).close.tolist() == [4, 5]
    assert whole.last(2).ts.tolist() == whole.ts[-2:].tolist()
    assert whole.last(5) is whole
    assert whole.last(9).close.tolist() == [1, 2, 3, 4, 5]
