"""The feed's bars and trades: copied straight in while all are new, the same as merging them always."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.properties import on_a_database
from tickstock.bars import Bar, Refusal
from tickstock.db.connection import fetch_value
from tickstock.db.writer import (
    Counts,
    Written,
    write_bars,
    write_new_bars,
    write_new_ticks,
    write_ticks,
)
from tickstock.ticks import Trade

START = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
START_MS = round(START.timestamp() * 1_000)
YEAR_2100_MS = 4_102_444_800_000
REFUSALS = [Refusal("feed", "no event", "{}")]

STORED = "select symbol, ts, open, high, low, close, volume, vwap, trades from ohlcv_1min"
REFUSED = "select source, reason, payload from refused_bars order by id"
REVISED = "select symbol, ts, replaced_by, close, vwap from ohlcv_revisions order by symbol, ts, id"
MARKED = "select distinct symbol, granule from tickstock.dirty"
QUEUED = (
    "select q.timeframe, q.shard, c.* from tickstock.scan_queue q, unnest(q.symbols, q.starts) c"
)


class Outcome(NamedTuple):
    written: Written
    bars: set[TupleRow]
    refused: list[TupleRow]
    revised: list[TupleRow]
    marked: set[TupleRow]
    queued: set[TupleRow]


def outcome(conn: Connection[TupleRow], written: Written) -> Outcome:
    return Outcome(
        written,
        set(conn.execute(STORED)),
        conn.execute(REFUSED).fetchall(),
        conn.execute(REVISED).fetchall(),
        set(conn.execute(MARKED)),
        set(conn.execute(QUEUED)),
    )


def merged(conn: Connection[TupleRow], bars: Sequence[Bar]) -> Outcome:
    """What merging makes of them; nothing of it stays."""
    with conn.transaction(force_rollback=True):
        return outcome(conn, write_bars(conn, bars, source="feed", refusals=REFUSALS))


def bar(symbol: str, minute: int, price: Any = 10, **fields: Any) -> Bar:
    made = Bar(symbol, START + timedelta(minutes=minute), price, price, price, price, volume=100)
    return made._replace(**fields)


def trade(symbol: str, milliseconds: int, sequence: int, **event: Any) -> Trade:
    return Trade(symbol, START_MS + milliseconds, sequence, 10.25, 100, (12, 37), event)


SYMBOLS = (
    "A",
    "BRK.B",
    'quo"ted',
    "back\\slash",
    "\\N",
    "null",
    "],[",
    "Ä",
    "two words",
    "a,b",
    "'",
)
PRICES = (10, 10.5, 0.1, 1e-7, 1e16, 123456789.123456789, Decimal("10.50"), Decimal("1E+2"))
possible = st.builds(
    bar,
    st.sampled_from(SYMBOLS),
    st.integers(0, 40),
    st.sampled_from(PRICES),
    volume=st.sampled_from((0, 2**53, 10**19, 0.5, Decimal("0.123456789012345678"))),
    vwap=st.sampled_from((None, 10, 10.1234)),
    trades=st.sampled_from((None, 7)),
)
IMPOSSIBLE = (
    bar("", 1),
    bar("Z", 1, -1),
    bar("Z", 1, float("nan")),
    bar("Z", 1, float("inf")),
    bar("Z", 1, low=11),
    bar("Z", 1, vwap=-1),
    bar("Z", 1, trades=-1),
    bar("Z", 1, ts=START.replace(second=1)),
    bar("Z", 1, ts=START.replace(year=2100)),
)
impossible = st.sampled_from(IMPOSSIBLE)
mixed = st.lists(st.one_of(possible, possible, possible, impossible), max_size=12)
new = st.lists(possible, max_size=12, unique_by=lambda bar: (bar.symbol, bar.ts))
new_but_one = st.builds(lambda bars, last: [*bars, last], new, impossible)


@on_a_database(examples=20)
@given(st.lists(st.one_of(mixed, new, new_but_one), min_size=1, max_size=3))
def test_new_bars_become_what_they_merge_to(
    conn: Connection[TupleRow], batches: list[list[Bar]]
) -> None:
    conn.execute("truncate ohlcv_1min, refused_bars, ohlcv_revisions, tickstock.scan_queue")
    for batch in batches:
        wanted = merged(conn, batch)
        written = write_new_bars(conn, batch, source="feed", refusals=REFUSALS)
        assert outcome(conn, written) == wanted


def test_each_impossible_bar_is_refused_among_new_ones(conn: Connection[TupleRow]) -> None:
    """Whatever of the table, or of us, judges it."""
    for number, wrong in enumerate(IMPOSSIBLE):
        batch = [wrong, bar("A", number)]
        wanted = merged(conn, batch)
        assert (wanted.written.counts.inserted, len(wanted.written.refused_rows)) == (1, 1)
        written = write_new_bars(conn, batch, source="feed", refusals=REFUSALS)
        assert outcome(conn, written) == wanted


def test_new_bars_are_not_merged(conn: Connection[TupleRow]) -> None:
    bars = [bar(symbol, minute, 10.25) for minute in range(100) for symbol in "BA"]
    counts = Counts(received=200, inserted=200)
    assert write_new_bars(conn, bars, source="feed") == Written(counts, frozenset())
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_bars')") is None
    again = Counts(received=200, unchanged=200)
    assert write_new_bars(conn, bars, source="feed") == Written(again, frozenset())
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_bars')") is not None


TRADES = st.builds(
    trade,
    st.sampled_from(SYMBOLS),
    st.integers(0, 2_000),
    st.integers(1, 3),
    x=st.sampled_from((None, 4, "4")),
    i=st.sampled_from((None, "1", 'q"', "b\\", "a,b", "null", "],[")),
    trft=st.sampled_from((None, START_MS, START_MS + 7_200_000, YEAR_2100_MS, 2**62)),
)


@on_a_database(examples=20)
@given(st.lists(st.lists(TRADES, min_size=1, max_size=8), min_size=1, max_size=3))
def test_new_trades_become_what_they_merge_to(
    conn: Connection[TupleRow], batches: list[list[Trade]]
) -> None:
    conn.execute("truncate ticks, refused_bars")

    def outcome(new: int) -> tuple[int, set[TupleRow], list[TupleRow]]:
        ticks = {(*row[:5], *map(str, row[5:])) for row in conn.execute("select * from ticks")}
        return new, ticks, conn.execute(REFUSED).fetchall()

    for batch in batches:
        with conn.transaction(force_rollback=True):
            wanted = outcome(write_ticks(conn, batch, source="feed"))
        assert outcome(write_new_ticks(conn, batch, source="feed")) == wanted


def test_new_trades_are_not_merged(conn: Connection[TupleRow]) -> None:
    trades = [trade(symbol, at, 1) for at in range(100) for symbol in "BA"]
    assert write_new_ticks(conn, trades, source="feed") == 200
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_ticks')") is None
    assert write_new_ticks(conn, trades, source="feed") == 0
    late = trade("A", 0, 2)._replace(at=YEAR_2100_MS)
    assert write_new_ticks(conn, [late], source="feed") == 0
    assert "more than a day in the future" in fetch_value(conn, "select reason from refused_bars")
