"""A pattern that fails, however it fails, stops nothing else."""

import logging
import sys

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import (
    WAITING,
    bar,
    drain,
    firing,
    new_york,
    on_one_engine,
    signalling,
    write,
)
from tickstock.db.connection import fetch_value
from tickstock.patterns import Bools, Candles, Pattern
from tickstock.patterns.sql_files import parse
from tickstock.scan.scanner import Scanned, Scanner

OPENING = new_york("2025-11-24 09:30")


def raises(c: Candles) -> Bools:
    raise RuntimeError("cannot judge")


def exits(c: Candles) -> Bools:
    sys.exit(3)


def in_sql(name: str, query: str) -> Pattern:
    return parse(f"-- {name}: broken.\n-- candles: 2\n-- timeframes: 1min\n{query}", "broken.sql")


ANSWER = "select symbol, judged, {} from candles where back = 0"
BROKEN = {
    "cannot judge": firing("B0", raises),
    "not bool": firing("B1", lambda c: c.close[-1]),
    'relation "nowhere"': in_sql("B2", "select * from nowhere"),
    "division by zero": in_sql("B3", ANSWER.format("'long', 1 / (back * 0), '{}'::jsonb")),
    "its direction is 'up'": in_sql("B4", ANSWER.format("'up', 1, '{}'::jsonb")),
    "its strength is 7": in_sql("B5", ANSWER.format("'long', 7, '{}'::jsonb")),
    "its details are [1]": in_sql("B6", ANSWER.format("'long', 1, '[1]'::jsonb")),
    "Integer exceeds 64-bit range": in_sql(
        "B10", ANSWER.format("""'long', 1, jsonb_build_object('far', 1e30::numeric)""")
    ),
    "which was not asked about": in_sql(
        "B7", "select symbol, judged - interval '9 days', 'long', 1, '{}'::jsonb from candles"
    ),
    "has 1 columns available": in_sql("B8", "select 1"),
    "it called sys.exit(3)": firing("B9", exits),
}


@on_one_engine
def test_it_stops_nothing_else(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    scanner = Scanner(
        [signalling("A"), *BROKEN.values(), signalling("Z")],
    )
    write(conn, *(bar(symbol, OPENING) for symbol in ("A", "B", "C")))
    with caplog.at_level(logging.INFO, "tickstock"):
        assert drain(conn, scanner) == Scanned(3, 6)
    assert fetch_value(conn, WAITING) == 0
    events = conn.execute("select pattern, symbol from events order by 1, 2").fetchall()
    assert events == [(name, symbol) for name in ("A", "Z") for symbol in ("A", "B", "C")]

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(BROKEN), "each is reported once, not for each symbol"
    for reason, pattern in BROKEN.items():
        (line,) = (line for line in said if line.startswith(f"pattern {pattern.name} failed on"))
        assert reason in line
