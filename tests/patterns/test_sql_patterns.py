"""Our SQL patterns on PostgreSQL: examples to be checked by eye, and oracles in plain Python."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tickstock.patterns import SqlPattern, discover

PATTERNS = {p.name: p for p in discover() if isinstance(p, SqlPattern)}
on_one_engine = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
pytestmark = on_one_engine


class Day(NamedTuple):
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


def days(*rows: str) -> list[Day]:
    """Written as "open high low close"."""
    return [Day(*map(Decimal, row.split())) for row in rows]


def found(
    conn: Connection[TupleRow], name: str, series: Mapping[str, Sequence[Day]], **parameters: float
) -> dict[tuple[str, int], tuple[str, float, dict[str, float]]]:
    """(symbol, which day) -> direction, strength, details: each day of each symbol is judged."""
    pattern = PATTERNS[name]
    given = pattern.with_defaults(parameters)
    first = datetime(2025, 1, 6, 14, 30, tzinfo=UTC)
    rows = [
        (symbol, number, first + timedelta(days=number), *day)
        for symbol, several in series.items()
        for number, day in enumerate(several)
    ]
    conn.execute(
        "create temp table if not exists day_rows (symbol text, number int, ts timestamptz,"
        " open numeric, high numeric, low numeric, close numeric)"
    )
    conn.execute("truncate day_rows")
    with conn.cursor().copy("copy day_rows from stdin") as copy:
        for row in rows:
            copy.write_row(row)
    columns = sql.SQL(", ").join(
        sql.SQL("{}::numeric as {}").format(sql.Literal(Decimal(str(value))), sql.Identifier(key))
        for key, value in given.items()
    )
    candles = sql.SQL(
        "select d.symbol, d.ts, j.number - d.number as back, j.ts as judged, d.open, d.high, d.low,"
        " d.close, 100::numeric as volume, 'regular'::text as session"
        " from day_rows j join day_rows d on d.symbol = j.symbol"
        " and d.number between j.number - {} + 1 and j.number"
    ).format(pattern.candles(given, "daily"))
    query = sql.SQL("with candles as ({}), parameters as (select {}) select * from ({}) q").format(
        candles,
        columns,
        sql.SQL(pattern.query),
    )
    answer = {}
    for symbol, judged, direction, strength, details in conn.execute(query):
        key = symbol, (judged - first).days
        assert key not in answer
        assert 0 <= strength <= 1
        answer[key] = direction, strength, details
    return answer


def directions(
    conn: Connection[TupleRow], name: str, several: Sequence[Day], **parameters: float
) -> list[str]:
    """What is found in the last of these days."""
    hits = found(conn, name, {"A": several}, **parameters)
    return [direction for (_, day), (direction, _, _) in hits.items() if day == len(several) - 1]


BEFORE = "99 101 98 100"  # high 101, low 98, close 100


@pytest.mark.parametrize(
    ("name", "day", "expected"),
    [
        ("GapUp", "102 104 101 103", ["long"]),  # exactly 2% above the close, above the high
        ("GapUp", "101.99 104 101 103", []),
        ("GapDown", "97.99 98 95 96", ["short"]),
        ("GapDown", "98 98 95 96", []),  # exactly 2% below, but not below the low
        ("InsideDay", "99 100.99 98.01 100", ["neutral"]),
        ("InsideDay", "99 101 98.01 100", []),  # as high
        ("InsideDay", "99 100.99 98 100", []),  # as low
    ],
)
def test_two_days(conn: Connection[TupleRow], name: str, day: str, expected: list[str]) -> None:
    assert directions(conn, name, days(BEFORE, day)) == expected
    assert directions(conn, name, days(day)) == [], "a day before is needed"


def test_they_tell_strength_and_numbers(conn: Connection[TupleRow]) -> None:
    hits = found(conn, "GapUp", {"A": days(BEFORE, "104 106 101 103")})
    # The gap from 100 to 104 was filled down to 101: a quarter is left.
    numbers = {"open": 104, "close_before": 100, "high_before": 101, "gap": 0.04}
    assert hits == {("A", 1): ("long", 0.25, numbers)}
    hits = found(conn, "InsideDay", {"A": days(BEFORE, "99 100 98.5 100")})
    assert [strength for _, strength, _ in hits.values()] == [0.5]


def test_nr7(conn: Connection[TupleRow]) -> None:
    six = ["100 102 99 101", "100 103 99 101", "100 102 98 101", "100 101 99 100.5", *[BEFORE] * 2]
    assert directions(conn, "NR7", days(*six, "100 101 99.01 100")) == ["neutral"]
    assert directions(conn, "NR7", days(*six, "100 101 99 100")) == [], "as narrow as the fourth"
    assert directions(conn, "NR7", days(*six[1:], "100 100 100 100")) == [], "seven are needed"
    assert directions(conn, "NR7", days(*six[1:], "100 101 99.01 100"), days=6) == ["neutral"]


def test_52_weeks(conn: Connection[TupleRow]) -> None:
    year = ["100 120 80 100", *["100 110 90 100"] * 250]
    assert directions(conn, "High52Week", days(*year, "100 120.01 100 101")) == ["long"]
    assert directions(conn, "High52Week", days(*year, "100 120 100 101")) == []
    assert directions(conn, "High52Week", days(*year[1:], "100 130 100 101")) == [], "a day too few"
    assert directions(conn, "High52Week", days(*year, BEFORE, "100 110.01 100 101")) == ["long"]
    assert directions(conn, "Low52Week", days(*year, "100 100 79.99 90")) == ["short"]
    assert directions(conn, "Low52Week", days(*year, "100 100 80 90")) == []
    assert directions(conn, "High52Week", days(*year, "121 121 121 121")) == ["long"]


Oracle = Callable[[Sequence[Day]], str | None]


def highest_of_six(several: Sequence[Day]) -> str | None:
    return "long" if several[-1].high > max(day.high for day in several[:-1]) else None


def lowest_of_six(several: Sequence[Day]) -> str | None:
    return "short" if several[-1].low < min(day.low for day in several[:-1]) else None


def narrowest(several: Sequence[Day]) -> str | None:
    *before, last = (day.high - day.low for day in several)
    return "neutral" if all(last < each for each in before) else None


def inside(several: Sequence[Day]) -> str | None:
    before, day = several
    return "neutral" if before.low < day.low and day.high < before.high else None


def gap_up(several: Sequence[Day]) -> str | None:
    before, day = several
    far = (day.open - before.close) / before.close >= Decimal("0.02")
    return "long" if far and day.open > before.high else None


def gap_down(several: Sequence[Day]) -> str | None:
    before, day = several
    far = (before.close - day.open) / before.close >= Decimal("0.02")
    return "short" if far and day.open < before.low else None


@pytest.mark.parametrize(
    ("name", "oracle", "parameters", "length"),
    [
        ("High52Week", highest_of_six, {"days": 6}, 6),
        ("Low52Week", lowest_of_six, {"days": 6}, 6),
        ("NR7", narrowest, {}, 7),
        ("InsideDay", inside, {}, 2),
        ("GapUp", gap_up, {}, 2),
        ("GapDown", gap_down, {}, 2),
    ],
)
def test_random_days(
    conn: Connection[TupleRow],
    name: str,
    oracle: Oracle,
    parameters: dict[str, float],
    length: int,
) -> None:
    rng = np.random.default_rng(7)
    series: dict[str, list[Day]] = {}
    for symbol in ("A", "B", "C"):
        prices = np.sort(rng.integers(95, 110, (300, 4)), axis=1).tolist()
        series[symbol] = [
            Day(*map(Decimal, (b, d, a, c) if rng.random() < 0.5 else (c, d, a, b)))
            for a, b, c, d in prices
        ]
    expected = {
        (symbol, n): direction
        for symbol, several in series.items()
        for n in range(length - 1, len(several))
        if (direction := oracle(several[n - length + 1 : n + 1]))
    }
    hits = found(conn, name, series, **parameters)
    assert {key: direction for key, (direction, _, _) in hits.items()} == expected
    assert len(expected) > 20
