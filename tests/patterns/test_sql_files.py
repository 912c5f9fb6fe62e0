"""Pattern files in SQL: what their headers declare, and what is said about broken ones."""

from pathlib import Path

import pytest

from tickstock import sqlfiles
from tickstock.patterns.sql_files import SqlFileError, parse, read_pattern
from tickstock.timeframes import TIMEFRAMES

WHOLE = """-- GapUp: opens higher.
-- open > close before.
-- More about it.
--
-- candles: 2
-- timeframes: daily, weekly
-- parameters: min_gap = 0.02, most = -3
-- source: a book

-- A comment of the query.
"""
SHIPPED = sorted((sqlfiles.sql_folder() / "patterns").glob("*.sql"))


def test_a_header_declares_all_of_it() -> None:
    query = "with x as (select 1)\nselect * from x"
    found = parse(WHOLE.replace("-- A comment of the query.\n", "") + query + ";\n", "gap.sql")
    assert found.name == "GapUp"
    assert found.summary == "opens higher."
    assert found.description == "opens higher.\n\nopen > close before.\nMore about it."
    assert found.timeframes == ("daily", "weekly")
    assert found.parameters == {"min_gap": 0.02, "most": -3.0}
    assert found.candles(found.parameters, "daily") == 2
    assert (found.source, found.file, found.query) == ("a book", "gap.sql", query)


def test_only_name_and_candles_are_required() -> None:
    found = parse("-- Any: at all.\n-- candles: 1\nselect 1", "any.sql")
    assert (found.timeframes, found.parameters, found.source) == (TIMEFRAMES, {}, "")


def test_candles_may_be_a_parameter() -> None:
    found = parse("-- NR: narrow.\n-- candles: days\n-- parameters: days = 7\nselect 1", "nr.sql")
    assert found.candles(found.parameters, "daily") == 7
    assert found.candles(found.with_defaults({"days": 4}), "daily") == 4


HEAD = "-- X: it is.\n"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "begin with a comment"),
        ("select 1", 1, "begin with a comment"),
        ("-- no name\nselect 1", 1, "expected, not 'no name'"),
        ("--\n-- X:\n-- candles: 1\nselect 1", 2, "expected, not 'X:'"),
        ("-- 7X: it is.\n-- candles: 1\nselect 1", 1, "expected"),
        (HEAD + "select 1", 1, "`-- candles: number` is missing"),
        (HEAD + "-- candles: many\nselect 1", 2, "candles is 'many', neither"),
        (HEAD + "-- candles: 0\nselect 1", 2, "candles is 0, not 1 to"),
        (HEAD + "-- candles: 1\n-- candles: 2\nselect 1", 3, "candles is there twice"),
        (HEAD + "-- candles: 1\n-- timeframes: daily, 7min\nselect 1", 3, "no timeframe 7min"),
        (HEAD + "-- timeframes: ,\n-- candles: 1\nselect 1", 2, "no timeframe is named"),
        (
            HEAD + "-- candles: 1\n-- parameters: a\nselect 1",
            3,
            "`name = number` expected, not 'a'",
        ),
        (
            HEAD + "-- candles: 1\n-- parameters: a = x\nselect 1",
            3,
            "parameter a is 'x', not a number",
        ),
        (HEAD + "-- candles: 1\n-- parameters: a = nan\nselect 1", 3, "not a number"),
        (HEAD + "-- candles: 1\n-- parameters: a = 1, a = 2\nselect 1", 3, "a is there twice"),
        (HEAD + "-- candles: 1\n-- parameter: a = 1\nselect 1", 3, "one of candles, timeframes"),
        (HEAD + "-- candles: 1\n", 3, "one select expected"),
        (HEAD + "-- candles: 1\n\n\ndelete from bars", 5, "one select expected"),
        (HEAD + "-- candles: 1\n\n-- It is.\n/* As\n   told. */ delete from bars", 6, "one select"),
        (HEAD + "-- candles: 1\n\n-- Not yet.\n", 4, "one select expected"),
        (HEAD + "-- candles: 1\nselect 1;\nselect 2;\n", 3, "one select expected"),
    ],
)
def test_what_is_broken_is_told_with_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(SqlFileError) as error:
        parse(text, "x.sql")
    assert str(error.value).startswith(f"x.sql, line {line}: ")
    assert problem in str(error.value)


@pytest.mark.parametrize("comment", ["-- Why: a reason;", "/* Why: a reason;\n   another. */"])
def test_the_query_may_have_comments_everywhere(comment: str) -> None:
    text = (
        f"{HEAD}-- candles: 1\n\n{comment}\n\n{comment}\nwith x as (select 1)\n{comment}\nselect 1;"
    )
    assert parse(text, "x.sql").query == f"with x as (select 1)\n{comment}\nselect 1"


@pytest.mark.parametrize("end", [";", ";  ", "; -- done; at last", ";-- done\n\n"])
def test_the_query_may_end_with_a_semicolon(end: str) -> None:
    text = f"{HEAD}-- candles: 1\nselect 1\nfrom candles -- of two{end}"
    assert parse(text, "x.sql").query == "select 1\nfrom candles -- of two"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As Notepad writes it."""
    file = tmp_path / "gap.sql"
    file.write_text(HEAD + "-- candles: 1\nselect 1", encoding="utf-8-sig", newline="\r\n")
    assert (read_pattern(file).name, read_pattern(file).query) == ("X", "select 1")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.sql"
    file.write_bytes(b"-- X: it is.\n-- candles: 1\nselect '\xff'")
    with pytest.raises(SqlFileError, match=r"x\.sql, line 3: it is not UTF-8"):
        read_pattern(file)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_ours_are_declared_in_full(file: Path) -> None:
    found = read_pattern(file)
    assert found.name.lower() == file.stem.replace("_", "") or "52" in found.name
    assert "Strength: " in found.description
    assert found.timeframes == ("daily",)
    assert found.source
    for parameter in found.parameters:
        assert f"{parameter}: " in found.description
        assert f"p.{parameter}" in found.query
