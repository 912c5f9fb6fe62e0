"""The feed's bars: copied straight in while all are new, and the same as merging them always."""

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
from tickstock.db.writer import Counts, Written, write_bars, write_new_bars

START = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
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
impossible = st.sampled_from(
    (
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
)
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


def test_new_bars_are_not_merged(conn: Connection[TupleRow]) -> None:
    bars = [bar(symbol, minute, 10.25) for minute in range(100) for symbol in "BA"]
    counts = Counts(received=200, inserted=200)
    assert write_new_bars(conn, bars, source="feed") == Written(counts, frozenset())
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_bars')") is None
    again = Counts(received=200, unchanged=200)
    assert write_new_bars(conn, bars, source="feed") == Written(again, frozenset())
    assert fetch_value(conn, "select to_regclass('pg_temp.incoming_bars')") is not None
