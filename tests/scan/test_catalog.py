"""The table `patterns`: what there is, and how it is set, without a restart."""

import logging
from datetime import timedelta

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import bar, drain, new_york, on_one_engine, signalling, write
from tickstock.db.connection import fetch_value
from tickstock.patterns import discover
from tickstock.scan.scanner import Scanner

pytestmark = on_one_engine
OPENING = new_york("2025-11-24 09:30")
MINUTE = timedelta(minutes=1)
DOJI = "select ts, timeframe, parameters from events where pattern = 'Doji' order by change"


def doji_after(conn: Connection[TupleRow], scanner: Scanner, minutes: int) -> list[TupleRow]:
    """The Doji of bars that are one, since the last call."""
    last = fetch_value(conn, "select latest_minute()") or OPENING - MINUTE
    before = len(conn.execute(DOJI).fetchall())
    for n in range(minutes):
        write(conn, bar("AAPL", last + (n + 1) * MINUTE))
        drain(conn, scanner)
    return conn.execute(DOJI).fetchall()[before:]


def test_what_there_is_can_be_looked_up(conn: Connection[TupleRow]) -> None:
    write(conn, bar("AAPL", OPENING))
    drain(conn, Scanner(discover()))
    told = conn.execute("select pattern, kind from patterns").fetchall()
    assert {name for name, _ in told} == {pattern.name for pattern in discover()}
    assert {kind for _, kind in told} == {"python", "sql", "talib"}
    row = conn.execute(
        "select default_parameters, candles, enabled, timeframes, parameters from patterns"
        " where pattern = 'Doji'"
    ).fetchone()
    assert row == ({"max_body": 0.1, "min_range": 0.01}, 1, True, None, {})


def test_what_was_told_in_vain_is_told_again(conn: Connection[TupleRow]) -> None:
    scanner = Scanner(discover())
    write(conn, bar("AAPL", OPENING))
    with conn.transaction(force_rollback=True):
        drain(conn, scanner)
    assert fetch_value(conn, "select count(*) from patterns") == 0
    drain(conn, scanner)
    assert fetch_value(conn, "select count(*) from patterns") == len(discover())


def test_a_setting_counts_from_the_next_candle_on(conn: Connection[TupleRow]) -> None:
    scanner = Scanner(discover())
    assert [row[1:] for row in doji_after(conn, scanner, 1)] == [
        ("1min", {"max_body": 0.1, "min_range": 0.01})
    ]
    conn.execute("update patterns set parameters = '{\"max_body\": 0.2}' where pattern = 'Doji'")
    assert [row[2] for row in doji_after(conn, scanner, 1)] == [
        {"max_body": 0.2, "min_range": 0.01}
    ]
    conn.execute("update patterns set timeframes = '{5min}' where pattern = 'Doji'")
    assert [row[1] for row in doji_after(conn, scanner, 4)] == ["5min"]
    conn.execute("update patterns set enabled = false where pattern = 'Doji'")
    assert doji_after(conn, scanner, 7) == []
    assert len(conn.execute(DOJI).fetchall()) == 3, "what it made before stays"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("parameters = '{\"max_boddy\": 1}'", "no parameter max_boddy"),
        ('parameters = \'{"max_body": "big"}\'', "not a number"),
        ("timeframes = '{7min}'", "no timeframe 7min"),
    ],
)
def test_a_setting_that_makes_no_sense_is_reported_and_stops_nothing(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture, setting: str, complaint: str
) -> None:
    scanner = Scanner([*discover(), signalling()])
    doji_after(conn, scanner, 1)
    conn.execute(f"update patterns set {setting} where pattern = 'Doji'")
    with caplog.at_level(logging.WARNING, "tickstock"):
        doji_after(conn, scanner, 2)
    (said,) = (record.getMessage() for record in caplog.records)
    assert complaint in said
    assert "Correct it in the table patterns" in said
    assert fetch_value(conn, "select count(*) from events where pattern = 'Always'") == 3
