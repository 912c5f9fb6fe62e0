"""The Python API: candles, events and any query as pandas DataFrames. docs/python.md tells it all.

Its functions are those of the package: `from tickstock import candles`.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, time
from operator import index
from typing import Any, Literal, LiteralString
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow, tuple_row
from psycopg.types.numeric import FloatLoader

from tickstock.db import connection as connections
from tickstock.db.read import Ask, ask_candles
from tickstock.db.source import database
from tickstock.timeframes import TIMEFRAMES

NEW_YORK = ZoneInfo("America/New_York")
Moment = datetime | date | str
"""A datetime with its time zone; a date, which is the beginning of that day in New York; or either
as ISO 8601 text."""

MOST = 2**31 - 1
"""The greatest of PostgreSQL's integers; more rows fit in no memory."""
TEXT = pd.StringDtype(na_value=np.nan)
EVENTS = """
select * from events
where (%(symbol)s::text is null or symbol = %(symbol)s)
  and (%(pattern)s::text is null or pattern = %(pattern)s)
  and (%(timeframe)s::text is null or timeframe = %(timeframe)s)
  and (%(since)s::timestamptz is null or ts >= %(since)s)
  and (%(until)s::timestamptz is null or ts < %(until)s)
  and (%(retracted)s or retracted_at is null)
order by ts desc, id desc limit %(last)s
"""


@contextmanager
def connect(database_url: str | None = None) -> Iterator[Connection[TupleRow]]:
    """A connection of psycopg to tickstock's database, for a `with` statement.

    Without `database_url` it is the database of the command line: TICKSTOCK_DATABASE_URL, libpq's PG
    variables, or the embedded server, which runs as long as the connection is open. It speaks UTC,
    and each statement commits. Raises DatabaseUnavailableError, or SchemaMissingError where
    `tickstock db migrate` has to be run (both of tickstock.errors).
    """
    url = database_url or os.environ.get("TICKSTOCK_DATABASE_URL")
    with database(url) as source, connections.connect(source.url, program="python") as conn:
        connections.require_schema(conn)
        yield conn


def candles(
    symbol: str,
    timeframe: str,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    last: int | None = None,
    sessions: Literal["all", "regular"] = "all",
    fill: bool = False,
    decimals: bool = False,
    database_url: str | None = None,
    connection: Connection[Any] | None = None,
) -> pd.DataFrame:
    """Candles of a symbol, oldest first, indexed by `ts`: their start, UTC.

    The arguments, and the other columns, are those of the SQL function candles(). Candles begin at or
    after `since` and before `until`; `last` takes the last so many of these. Prices (dollars), volume
    (shares) and vwap are float64, or Decimal as stored with `decimals`; trades are Int64, which has NA.
    No candle in the range: an empty frame of the same types.

    `connection`, of connect(), saves a new one for each call; else as connect(database_url).

    Raises ValueError for a timeframe, sessions or `last` that make no candles, for a time without
    time zone, and (as tickstock.errors.UnknownSymbolError) for a symbol without any bar.
    """
    ask = Ask(
        symbol,
        timeframe,
        _moment("since", since),
        _moment("until", until),
        _count("candles", last),
        sessions,
        fill,
    )

    def rows(cursor: Cursor[TupleRow]) -> list[TupleRow]:
        return ask_candles(cursor, ask)

    frame = _read(rows, decimals, database_url, connection).set_index("ts")
    return frame.astype({"trades": "Int64"})


def events(
    symbol: str | None = None,
    *,
    pattern: str | None = None,
    timeframe: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    last: int | None = None,
    retracted: bool = False,
    decimals: bool = False,
    database_url: str | None = None,
    connection: Connection[Any] | None = None,
) -> pd.DataFrame:
    """Events of these candles, oldest first, indexed by `ts`: the start of the candle, UTC.

    The other columns are those of the table events; `details` and `parameters` are dicts, `price` is
    float64 (dollars), or Decimal with `decimals`. What is left out (None) does not restrict. Events
    that were taken back come only with `retracted`. Raises ValueError for a time without time zone,
    and for a timeframe or `last` that is none.
    """
    if timeframe is not None and timeframe not in TIMEFRAMES:
        raise ValueError(
            f"timeframe={timeframe!r} has no events: expected one of {', '.join(TIMEFRAMES)}"
        )
    chosen = {
        "symbol": symbol,
        "pattern": pattern,
        "timeframe": timeframe,
        "since": _moment("since", since),
        "until": _moment("until", until),
        "last": _count("events", last),
        "retracted": retracted,
    }

    def rows(cursor: Cursor[TupleRow]) -> list[TupleRow]:
        return cursor.execute(EVENTS, chosen).fetchall()[::-1]

    return _read(rows, decimals, database_url, connection).set_index("ts")


def query(
    statement: LiteralString,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    decimals: bool = False,
    database_url: str | None = None,
    connection: Connection[Any] | None = None,
) -> pd.DataFrame:
    """What a query returns: any SQL of docs/sql.md.

    `parameters` take the places of %s, or %(name)s, in the statement: never paste values into it.
    Numbers are float64 (or Decimal with `decimals`) and int64 (Int64 where one is null), timestamptz
    is a UTC time, interval a Timedelta. Errors of the database are those of psycopg. ValueError for
    a statement that returns no rows, such as an insert: use connect().
    """

    def rows(cursor: Cursor[TupleRow]) -> list[TupleRow]:
        cursor.execute(statement, parameters)
        if cursor.description is None:
            raise ValueError(
                "this statement returns no rows: execute it on a connection of connect()"
            )
        return cursor.fetchall()

    return _read(rows, decimals, database_url, connection)


def _read(
    rows: Callable[[Cursor[TupleRow]], list[TupleRow]],
    decimals: bool,
    database_url: str | None,
    connection: Connection[Any] | None,
) -> pd.DataFrame:
    with (
        nullcontext(connection) if connection else connect(database_url) as conn,
        conn.cursor(row_factory=tuple_row) as cursor,
    ):
        if not decimals:
            cursor.adapters.register_loader("numeric", FloatLoader)
        return _frame(cursor, rows(cursor), decimals)


def _frame(cursor: Cursor[TupleRow], rows: list[TupleRow], decimals: bool) -> pd.DataFrame:
    """Rows of a cursor, in types that depend on the columns alone, but for nulls in whole numbers."""
    described = cursor.description or ()
    values = zip(*rows, strict=True) if rows else [() for _ in described]
    columns = [
        _column(_type(cursor, column), list(each), decimals)
        for column, each in zip(described, values, strict=True)
    ]
    frame = pd.concat(columns, axis="columns") if columns else pd.DataFrame(index=range(len(rows)))
    frame.columns = pd.Index([column.name for column in described])
    return frame


def _type(cursor: Cursor[TupleRow], column: psycopg.Column) -> str:
    known = cursor.adapters.types.get(column.type_code)
    return known.name if known and column.type_code == known.oid else ""


def _column(kind: str, values: list[Any], decimals: bool) -> "pd.Series[Any]":
    if kind in ("float4", "float8") or (kind == "numeric" and not decimals):
        return pd.Series(values, dtype="float64")
    if kind in ("int2", "int4", "int8"):
        return pd.Series(values, dtype="Int64" if None in values else "int64")
    if kind == "bool":
        return pd.Series(values, dtype="boolean" if None in values else "bool")
    if kind == "timestamptz":
        return pd.Series(values, dtype="datetime64[us, UTC]")
    if kind == "interval":
        return pd.Series(values, dtype="timedelta64[us]")
    if kind in ("text", "varchar", "name"):
        return pd.Series(values, dtype=TEXT)
    return pd.Series(values, dtype="object")


def _count(what: str, last: int | None) -> int | None:
    """As PostgreSQL takes it. numpy's numbers, which pandas gives, would be of a type of their own."""
    if last is None:
        return None
    if isinstance(last, bool) or not hasattr(last, "__index__") or last < 1:
        raise ValueError(
            f"the last {last} {what}? Give last a whole number from 1 up, or leave it out"
        )
    return min(index(last), MOST)


def _moment(name: str, moment: Moment | None) -> datetime | None:
    """In UTC. ValueError for a time without time zone: New York's and UTC's are hours apart."""
    if isinstance(moment, str):
        moment = _parsed(name, moment)
    if isinstance(moment, type(pd.NaT)):
        raise ValueError(f"{name}=NaT is no time")
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise ValueError(
                f"{name}={str(moment)!r} has no time zone: give it one, such as"
                " tzinfo=ZoneInfo('America/New_York'), or a date for the beginning of a New York day"
            )
        return moment.astimezone(UTC)
    if moment is not None:
        if not isinstance(moment, date):
            raise ValueError(
                f"{name}={moment!r} can't be read: expected a datetime with its time zone, a date, or"
                " either as text (pd.Timestamp(…, tz='UTC') makes one of numpy's)"
            )
        return datetime.combine(moment, time(0), NEW_YORK).astimezone(UTC)
    return None


def _parsed(name: str, text: str) -> datetime | date:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        try:
            return parse(text)
        except ValueError:
            pass
    raise ValueError(
        f"{name}={text!r} can't be read: expected a day such as 2025-11-24, or a time such as"
        " 2025-11-24T09:30-05:00"
    )
