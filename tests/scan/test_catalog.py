"""The table `patterns`: what there is, and how it is set, without a restart."""

import logging
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import bar, drain, new_york, on_one_engine, signalling, write
from tickstock.db.connection import fetch_value
from tickstock.patterns import Parameters, discover
from tickstock.scan.catalog import Catalog
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
    longest = fetch_value(conn, "select candles from patterns where pattern = 'HighOfDay'")
    assert longest == 78, "on 5min, where it looks at the most"


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
    # As an older version let it through.
    conn.execute("alter table patterns disable trigger before_setting")
    conn.execute(f"update patterns set {setting} where pattern = 'Doji'")
    with caplog.at_level(logging.WARNING, "tickstock"):
        doji_after(conn, scanner, 2)
    (said,) = (record.getMessage() for record in caplog.records)
    assert complaint in said
    assert "Correct it in the table patterns" in said
    assert fetch_value(conn, "select count(*) from events where pattern = 'Always'") == 3


@pytest.mark.parametrize(
    ("pattern", "value", "complaint"),
    [
        ("CDLMORNINGSTAR", '{"penetration": -5}', "TA-Lib refuses penetration = -5"),
        ("VolumeSpike", '{"mean_of": 0}', "parameter mean_of is 0, it must be a whole number"),
    ],
)
def test_a_number_out_of_range_is_one_line_of_the_log_and_stops_nothing(
    conn: Connection[TupleRow],
    caplog: pytest.LogCaptureFixture,
    pattern: str,
    value: str,
    complaint: str,
) -> None:
    scanner = Scanner([*discover(), signalling()])
    doji_after(conn, scanner, 1)
    conn.execute("update patterns set parameters = %s where pattern = %s", (value, pattern))
    with caplog.at_level(logging.INFO, "tickstock"):
        doji_after(conn, scanner, 6)
    (record,) = caplog.records
    assert f"setting of {pattern} on all timeframes: " in record.getMessage()
    assert complaint in record.getMessage()
    assert record.getMessage().endswith("Correct it in the table patterns")
    assert record.exc_info is None
    assert fetch_value(conn, "select count(*) from events where pattern = 'Always'") == 7


@pytest.mark.parametrize(
    ("setting", "said", "hint"),
    [
        ("timeframes = '{5 min}'", "there is no timeframe '5 min'", "There are: 1min, 5min, 15min"),
        ("timeframes = '{5min, null}'", "there is no timeframe null", "There are: 1min, 5min"),
        ("timeframes = '{{5min}}'", "there is no timeframe that is a list", "There are: 1min"),
        (
            "parameters = '{\"max_bodyy\": 1}'",
            "pattern Doji has no parameter max_bodyy (it has: max_body, min_range)",
            "Correct its name, or leave it out. `tickstock patterns show Doji`",
        ),
        (
            'parameters = \'{"max_body": "big"}\'',
            'parameter max_body of pattern Doji is "big", not a number',
            "parameters = '{\"max_body\": 0.1}', or leave it out",
        ),
        ("parameters = '{\"max_body\": null}'", "is null, not a number", "or leave it out"),
        ("parameters = '{\"max_body\": 1e400}'", "0000, not a number", "or leave it out"),
        ("parameters = '[1]'", "patterns_parameters_check", None),
    ],
)
def test_what_is_mistyped_is_refused_where_it_is_typed(
    conn: Connection[TupleRow], setting: str, said: str, hint: str | None
) -> None:
    Catalog(discover()).tell(conn)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        conn.execute(f"update patterns set {setting} where pattern = 'Doji'")
    assert said in (refused.value.diag.message_primary or "")
    assert (hint or "") in (refused.value.diag.message_hint or "")
    assert fetch_value(
        conn, "select timeframes is null and parameters = '{}' from patterns where pattern = 'Doji'"
    )


def test_an_older_setting_hinders_nothing_else(conn: Connection[TupleRow]) -> None:
    doji = next(each for each in discover() if each.name == "Doji")
    older = replace(doji, parameters=Parameters({**doji.parameters, "gone": 1.0}))
    Catalog([older]).tell(conn)
    conn.execute("update patterns set parameters = '{\"gone\": 2}'")
    Catalog([doji]).tell(conn)
    assert fetch_value(conn, "select default_parameters from patterns") == doji.parameters
    conn.execute(
        "update patterns set enabled = false, timeframes = '{5min}', parameters = parameters"
    )
    conn.execute("update patterns set parameters = parameters - 'gone' || '{\"max_body\": 0.2}'")
