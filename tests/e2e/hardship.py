"""Trouble for the database, and what comes of a market when nothing disturbs its scan."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from tests.conftest import Engine
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.db.writer import write_bars
from tickstock.patterns import discover
from tickstock.scan.scanner import Scanner
from tickstock.simulator import RandomMarket

from .hand_fed import OPENING

CUT: LiteralString = (
    "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
    " where datname = %s and application_name like 'tickstock %%' and pid <> pg_backend_pid()"
)


def market(symbols: int, minutes: int) -> RandomMarket:
    """The first minutes of a trading day, always the same."""
    end = OPENING + timedelta(minutes=minutes)
    return RandomMarket(symbols, seed=3, start=OPENING, end=end)


def cut_connections(url: str) -> int:
    """End every connection of tickstock to this database; how many there were."""
    with _elsewhere(url) as conn:
        return int(fetch_value(conn, CUT, _dbname(url)))


@contextmanager
def database_gone(url: str) -> Iterator[None]:
    """Nobody is connected, and nobody can connect, for the length of the block."""
    permit = SQL("alter database {} with allow_connections {}")
    name = Identifier(_dbname(url))
    with _elsewhere(url) as conn:
        conn.execute(permit.format(name, SQL("false")))
        conn.execute(CUT, (_dbname(url),))
        yield
        conn.execute(permit.format(name, SQL("true")))


def undisturbed_events(engine: Engine, bars: Iterable[Bar]) -> list[TupleRow]:
    """The events of these bars as one scanner finds them that nothing disturbs."""
    url = engine.clone()
    with connect(url, program="test") as conn:
        write_bars(conn, bars, source="test")
        scanner = Scanner(discover())
        while scanner.scan(conn).candles:
            pass
        found = events(url)
    engine.drop(url)
    return found


def events(url: str) -> list[TupleRow]:
    """All events but their ids and times of detection, in a fixed order."""
    with psycopg.connect(url) as conn:
        return conn.execute(
            "select pattern, symbol, timeframe, ts, direction, price, details from events"
            " order by pattern, symbol, timeframe, ts"
        ).fetchall()


def _elsewhere(url: str) -> "psycopg.Connection[TupleRow]":
    return psycopg.connect(
        # What is done here must outlive a crash of the server; those of tests need not, by default.
        make_conninfo(url, dbname="postgres", options="-c synchronous_commit=on"),
        autocommit=True,
    )


def _dbname(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
