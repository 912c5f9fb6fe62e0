"""A pattern that fails, however it fails, stops nothing else."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.scan.support import WAITING, bar, drain, new_york, on_one_engine, signalling, write
from tickstock.db.connection import fetch_value
from tickstock.patterns import Pattern, Signal, Window
from tickstock.scan.scanner import Scanned, Scanner

OPENING = new_york("2025-11-24 09:30")


def raises(window: Window) -> Any:
    raise RuntimeError(f"cannot judge {window.symbol}")


def writes_into_the_window(window: Window) -> Any:
    window.close[:] = 0


BROKEN: dict[str, Callable[[Window], Any]] = {
    "cannot judge": raises,
    "read-only": writes_into_the_window,
    "neither a Signal nor None": lambda _: True,
    "its direction is 'up'": lambda _: Signal("up", {}),  # type: ignore[arg-type]
    "its details are None": lambda _: Signal("long", None),  # type: ignore[arg-type]
    "not JSON serializable": lambda _: Signal("long", {"x": object()}),  # type: ignore[dict-item]
    "NUL": lambda _: Signal("long", {"x": "\0"}),  # type: ignore[dict-item]
    "str is not valid UTF-8": lambda _: Signal("long", {"\ud800": 1.0}),
    "out of bounds": lambda window: window.close[99],
}


@on_one_engine
def test_it_stops_nothing_else(
    conn: Connection[TupleRow], caplog: pytest.LogCaptureFixture
) -> None:
    broken = [Pattern(f"B{n}", 1, ("1min",), f) for n, f in enumerate(BROKEN.values())]
    scanner = Scanner([signalling("First"), *broken, signalling("Last")], to_redis=False)
    write(conn, *(bar(symbol, OPENING) for symbol in ("A", "B", "C")))
    with caplog.at_level(logging.INFO, "tickstock"):
        assert drain(conn, scanner) == Scanned(3, 6)
    assert fetch_value(conn, WAITING) == 0
    events = conn.execute("select pattern, symbol from events order by 1, 2").fetchall()
    assert events == [(name, symbol) for name in ("First", "Last") for symbol in ("A", "B", "C")]

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(BROKEN), "each is reported once, not for each symbol"
    for (reason, _), pattern, line in zip(BROKEN.items(), broken, said, strict=True):
        assert line.startswith(f"pattern {pattern.name} failed on A 1min")
        assert reason in line


@on_one_engine
def test_numbers_of_numpy_are_details_and_what_is_no_number_is_null(
    conn: Connection[TupleRow],
) -> None:
    details = {
        "float": np.float64(1.5),
        "single": np.float32(0.25),
        "whole": np.int64(7),
        "none": float("nan"),
        "endless": np.float64("inf"),
    }
    pattern = Pattern("Numpy", 1, ("1min",), lambda _: Signal("short", details))  # type: ignore[arg-type]
    write(conn, bar("A", OPENING))
    assert drain(conn, Scanner([pattern], to_redis=False)).events == 1
    assert fetch_value(conn, "select details from events") == {
        "float": 1.5,
        "single": 0.25,
        "whole": 7,
        "none": None,
        "endless": None,
    }
