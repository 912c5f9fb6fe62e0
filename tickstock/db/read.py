"""Reading candles by the SQL function candles(), with errors that say what to do instead."""

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import LiteralString

import psycopg
from psycopg import Connection, Cursor, sql
from psycopg.rows import TupleRow

from tickstock.counted import counted
from tickstock.db.source import DEMO_DBNAME
from tickstock.errors import UnknownSymbolError

CANDLES = sql.SQL("""
select {columns}
from candles(%(symbol)s, %(timeframe)s, %(since)s, %(until)s, %(last)s, %(sessions)s, %(fill)s)
""")


@dataclass(frozen=True)
class Ask:
    """The arguments of the SQL function candles(): docs/sql.md, Candles of any width."""

    symbol: str
    timeframe: str
    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None
    sessions: str = "all"
    fill: bool = False


def ask_candles(cursor: Cursor[TupleRow], ask: Ask, columns: LiteralString = "*") -> list[TupleRow]:
    """These columns of the candles asked for, oldest first.

    ValueError where there are no such candles (a timeframe, sessions or number that makes none),
    UnknownSymbolError for a symbol that has no candle at all.
    """
    if "\0" in ask.symbol + ask.timeframe + ask.sessions:
        raise ValueError("there is no zero byte in a symbol, a timeframe or the name of sessions")
    try:
        query = CANDLES.format(columns=sql.SQL(columns))
        rows = cursor.execute(query, vars(ask)).fetchall()
    except psycopg.errors.InvalidParameterValue as error:
        told = (error.diag.message_primary, error.diag.message_hint)
        raise ValueError(". ".join(each for each in told if each)) from None
    if not rows:
        require_symbol(cursor.connection, ask.symbol)
    return rows


def require_symbol(conn: Connection[TupleRow], symbol: str) -> None:
    """UnknownSymbolError for one that has no candle at all; it says which there are."""
    if not _is_known(conn, symbol):
        raise UnknownSymbolError(f"no candles of {symbol!r}: {_instead(conn, symbol)}")


def _is_known(conn: Connection[TupleRow], symbol: str) -> bool:
    """Every bar is in some candle of four hours."""
    found = conn.execute("select from candles(%s, '4hour', last => 1)", (symbol,))
    return found.fetchone() is not None


def _instead(conn: Connection[TupleRow], symbol: str) -> str:
    names = [name for (name,) in conn.execute("select distinct symbol from ohlcv_4hour order by 1")]
    if not names:
        fill = "demo" if conn.info.dbname == DEMO_DBNAME else "ingest, tickstock load"
        return f"the database holds no bars yet (tickstock {fill})"
    near = get_close_matches(symbol.upper(), names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    some = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    return f"the database has {counted(len(names), 'symbol')}: {some}"
