"""Text that would be SQL if it were pasted into SQL: symbols, timeframes, patterns, names, sources."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg.types.json import Json, Jsonb

from tests.e2e.program import run
from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.db.writer import write_bars

HOSTILE = (
    "x'; drop table ticks; --",
    '"x',
    '"; drop table ticks; --',
    "%s",
    "%I%L%1$s",
    "$1",
    "$q$; drop table ticks; $q$",
    "5min') ; drop table ticks; --",
    "5min(null,null,null,0,0) w; drop table ticks; --",
    "\\'; drop table ticks; --",
    "\\N\tx\n\\.",
    "*",
    "🦆" * 3,
    "x" * 10_000,
)
MINUTE = datetime(2025, 11, 24, 15, 0, tzinfo=UTC)

# Each takes the hostile text once; what is no symbol may be refused, but never as wrong SQL.
CALLS = (
    "select * from candles(%s, '5min')",
    "select * from candles('AAPL', %s)",
    "select * from candles('AAPL', '5min', sessions => %s)",
    "select * from latest_candles(%s)",
    "select * from coverage(%s, '2025-11-24')",
    "select * from missing_minutes(%s, '2025-11-24')",
    "select * from symbol_status(array[%s])",
    "select candle_start(%s, now())",
    "select candle_complete_at(%s, now())",
    "select * from tickstock.pattern_candles(%s, '{AAPL}', array[now()], array[now()], 1, 0)",
    "select * from tickstock.pattern_candles('5min', array[%s], array[now()], array[now()], 1, 0)",
    "select * from tickstock.candles_query(%s, 'all')",
    "select * from tickstock.filled_query(%s, 'all')",
    "select * from tickstock.old_bars(%s, now(), now())",
    "select tickstock.rematerialize('5min', array[%s], array[now()])",
    "select tickstock.settle(%s, now(), now() + interval '1 minute', now(), 'rest', 0)",
    "select tickstock.settle('A', now(), now() + interval '1 minute', now(), %s, 0)",
    "select tickstock.doubt(array[%s], array[now()])",
    "select tickstock.open_stretch(%s, 'AM', null)",
    "select set_config('tickstock.source', %s, false)",
    "select bar_defect(%s, now(), 1, 1, 1, 1, 1, 1, 1)",
)
WRONG_SQL = (
    psycopg.errors.SyntaxError,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.AmbiguousParameter,
    psycopg.errors.UndefinedParameter,
    psycopg.errors.InvalidTextRepresentation,
)


@pytest.fixture
def unharmed(conn: Connection[TupleRow]) -> Iterator[None]:
    yield
    assert fetch_value(conn, "select to_regclass('public.ticks')") is not None


@pytest.mark.usefixtures("unharmed")
def test_functions_that_make_statements(conn: Connection[TupleRow]) -> None:
    conn.execute("insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
                 " values ('AAPL', %s, 1, 1, 1, 1, 1)", (MINUTE,))  # fmt: skip
    for call in CALLS:
        for text in HOSTILE:
            try:
                conn.execute(call.encode(), (text,))
            except WRONG_SQL as error:
                pytest.fail(f"{call} of {text[:60]!r}: {error}")
            except psycopg.Error:
                pass  # refused as what it is: no symbol, no timeframe


@pytest.mark.usefixtures("unharmed")
def test_symbols_of_all_kinds_come_back_as_they_went_in(conn: Connection[TupleRow]) -> None:
    # A symbol is part of an index, which takes some 2,700 bytes.
    symbols = [text for text in HOSTILE if len(text) < 1_000]
    bars = [Bar(s, MINUTE, "1", high="2", low="1", close="1.5", volume="5") for s in symbols]  # type: ignore[arg-type]
    written = write_bars(conn, bars, source=HOSTILE[0])
    assert written.counts.inserted == len(symbols), written
    conn.execute("call ohlcv_refresh()")
    for relation in ("ohlcv_1min", "ohlcv_5min", "ohlcv_daily"):
        query = psycopg.sql.SQL("select symbol from {}").format(psycopg.sql.Identifier(relation))
        assert {s for (s,) in conn.execute(query)} == set(symbols)
    conn.execute("update ohlcv_1min set close = 1.25")
    assert write_bars(conn, bars, source=HOSTILE[0]).counts.replaced == len(symbols)
    sources = {source for (source,) in conn.execute("select replaced_by from ohlcv_revisions")}
    assert sources == {"sql", HOSTILE[0]}
    for symbol in symbols:
        assert fetch_value(
            conn, "select count(*) from candles(%s, '10 minutes')", symbol
        ) == 1  # fmt: skip
    since_until = dict.fromkeys(("since", "until"), MINUTE.isoformat())
    made = conn.execute(
        "select made from tickstock.record_events(%(asked)s, %(spans)s, %(numbers)s, %(starts)s, %(prices)s,"
        " %(symbols)s, %(numbers)s, %(numbers)s, %(ones)s, %(ones)s, %(starts)s, %(details)s)",
        {
            "asked": Jsonb({"1min": {symbol: {} for symbol in symbols}}),
            "spans": Json([{"timeframe": "1min", "symbol": s} | since_until for s in symbols]),
            "numbers": [float(n) for n in range(1, len(symbols) + 1)],
            "starts": [MINUTE.timestamp() for _ in symbols],
            "prices": " ".join("1" for _ in symbols),
            "symbols": symbols,
            "ones": [1.0 for _ in symbols],
            "details": Jsonb([{s: s} for s in symbols]),
        },
    ).fetchone()
    # Too long for a NOTIFY is nothing here; each is an event under its own name.
    assert made == (len(symbols),)
    assert {p for (p,) in conn.execute("select pattern from events")} == set(symbols)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.usefixtures("unharmed")
def test_commands(url: str, tmp_path: Path) -> None:
    settings = {"TICKSTOCK_DATABASE_URL": url, "TICKSTOCK_DATA_DIR": str(tmp_path)}
    for text in (HOSTILE[0], '"x', "%s", "x" * 3_000):
        for arguments in (
            ("status", "--symbols", text),
            ("patterns", "show", text),
            ("listen", "--consumer", text, "--since", text),
            ("scan", "--from", text),
            ("explain", text),
            ("load", text),
            ("backfill", text, "--from", "2025-11-24"),
        ):
            done = run(*arguments, **settings)
            assert done.returncode in (0, 1, 2, 5, 6), (arguments, done)
            assert "syntax error" not in done.stderr, done


def test_a_database_name_is_quoted(engine: object, conn: Connection[TupleRow]) -> None:
    """The schema, in a database whose name would be SQL."""
    from tests.conftest import Engine

    assert isinstance(engine, Engine)
    name = "x\"; drop table ticks; -- '%s"
    url = engine.create(name)
    try:
        from tickstock.db.migrate import migrate

        migrate(url)
        with connect(url, program="test") as own:
            assert fetch_value(own, "select to_regclass('ticks')") is not None
    finally:
        engine.drop(url)
