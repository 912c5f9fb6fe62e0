"""The scanner's hot queries read a symbol's last candles, whatever else there is."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.scan.support import bar, new_york, write
from tickstock.db.connection import fetch_value
from tickstock.patterns import SqlPattern, discover
from tickstock.scan.judge import query_of
from tickstock.scan.scanner import PLAN_FOR_GROWTH

LENGTH = 5
MOST_ROWS = 35
"""Read for one symbol's window: the window, what bounds it, and the changed candles."""

LOAD = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select 'S' || s, opens_at + m * interval '1 minute', 10, 11, 9, 10, 100
from generate_series(1, 100) s, trading_days, generate_series(1, %s::integer) m
where day between %s and %s order by 1, 2
"""
WITH_BARS = """
select 'ohlcv_1min' union
select relname from pg_inherits join pg_class on oid = inhrelid where inhparent = 'ohlcv_1min'::regclass
"""
SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan"}
BARS_AND_CANDLES = ("ohlcv_1min", "candles_", "_hyper_")


@pytest.fixture
def loaded(conn: Connection[TupleRow]) -> Connection[TupleRow]:
    """202 bars of each of 100 symbols in 11 days; of the last day no candles have been made yet."""
    conn.execute("set tickstock.scan_queue = off")
    conn.execute(LOAD, (20, "2025-11-07", "2025-11-20"))
    write(conn, bar("CLOCK", new_york("2025-11-20 16:00")))
    conn.execute("call ohlcv_refresh()")
    conn.execute("analyze")  # as autovacuum does
    conn.execute(LOAD, (2, "2025-11-21", "2025-11-21"))
    assert fetch_value(conn, "select count(*) from ohlcv_1min where symbol = 'S7'") == 202
    assert fetch_value(conn, "select count(distinct symbol) from tickstock.dirty") == 101
    return conn


def test_a_window_is_read_by_index(loaded: Connection[TupleRow]) -> None:
    for timeframe, clock in {"1min": "09:32", "5min": "09:30", "daily": "00:00"}.items():
        nodes = list(scans(explain(loaded, timeframe, new_york(f"2025-11-21 {clock}"))))
        assert nodes, timeframe
        for node in nodes:
            assert node["Node Type"] != "Seq Scan", node
            assert "symbol" in str(node.get("Index Cond") or node.get("Recheck Cond")), node
        assert LENGTH <= sum(map(rows_read, nodes)) <= MOST_ROWS, timeframe


@pytest.mark.parametrize("name", ["High52Week", "Low52Week", "GapUp", "NR7"])
def test_a_pattern_in_sql_goes_through_its_candles_once(
    loaded: Connection[TupleRow], name: str
) -> None:
    """Not once for each symbol: a year of thousands of them is millions of candles."""
    pattern = next(each for each in discover() if each.name == name)
    assert isinstance(pattern, SqlPattern)
    symbols = [symbol for (symbol,) in loaded.execute("select distinct symbol from ohlcv_daily")]
    day = [new_york("2025-11-20 00:00")] * len(symbols)
    row = loaded.execute(
        sql.SQL("explain (analyze, format json) {}").format(
            query_of(pattern, pattern.with_defaults({}))
        ),
        ("daily", symbols, day, day, 10, 0),
    ).fetchone()
    assert row is not None
    scans = [node for node in nodes_of(row[0][0]["Plan"]) if node.get("CTE Name") == "candles"]
    assert scans
    assert {node["Actual Loops"] for node in scans} == {1}


def test_years_of_bars_are_not_looked_at(conn: Connection[TupleRow]) -> None:
    """Each week of them is a chunk: to pass over hundreds takes longer, a symbol, than to read it."""
    conn.execute("set tickstock.scan_queue = off")
    weeks = [new_york("2025-11-20 15:59") - timedelta(weeks=n) for n in range(30)]
    write(conn, *(bar("S7", at) for at in weeks), *(bar("S8", at) for at in weeks[:3]))
    conn.execute("call ohlcv_refresh()")
    end = new_york("2025-11-20 15:59")
    after = (end - timedelta(minutes=1)).timestamp()
    plans = [
        explain(conn, "1min", end),
        plan_of(
            conn,
            "select * from tickstock.fresh_1min(array['S7', 'S8'], array[{0}, {0}], array[{1}, {1}])",
            after,
            end.timestamp(),
        ),
        plan_of(
            conn,
            "select up_to from unnest(array['S7', 'S8']) s cross join tickstock.complete_up_to(s, {})",
            end,
        ),
    ]
    with_bars = {name for (name,) in conn.execute(WITH_BARS)}
    for plan in plans:
        assert 1 <= len({node["Relation Name"] for node in scans(plan)} & with_bars) <= 2


def test_times_are_computed_once_and_not_for_each_candle(conn: Connection[TupleRow]) -> None:
    """Of thousands of symbols, whose candles end at one time."""
    opens_at = new_york("2025-11-20 09:30")
    symbols = [f"S{n}" for n in range(60)]
    write(conn, *(bar(s, opens_at + timedelta(minutes=m)) for s in symbols for m in range(5)))
    conn.execute("set track_functions = 'all'")
    taken = Counter[str]()
    with conn.transaction():
        while some := conn.execute("select timeframe from tickstock.take_candles(1000)").fetchall():
            taken.update(timeframe for (timeframe,) in some)
        calls = fetch_value(
            conn,
            "select pg_stat_get_xact_function_calls('candle_complete_at(text, timestamptz)'::regprocedure)",
        )
    assert taken == {"1min": 300, "5min": 60}
    assert calls < 60


def explain(conn: Connection[TupleRow], timeframe: str, end: datetime) -> dict[str, Any]:
    arguments = (end, end, LENGTH - 1, LENGTH - 1)
    if timeframe == "1min":
        statement = fetch_value(conn, "select tickstock.windows_of_bars(tickstock.recent_since())")
        conn.execute("deallocate prepare all")
        conn.execute(
            f"prepare bars (text[], timestamptz[], timestamptz[], integer, integer, bigint[]) as {statement}"
        )
        query = "execute bars (array['S7'], array[{}], array[{}], {}, {}, array[1])"
    else:
        windows = f"tickstock.windows_{timeframe}"
        query = f"select * from {windows}(array['S7'], array[{{}}], array[{{}}], {{}}, {{}})"
    return plan_of(conn, query, *arguments)


def plan_of(conn: Connection[TupleRow], query: Any, *arguments: object) -> dict[str, Any]:
    with conn.transaction():
        conn.execute(PLAN_FOR_GROWTH)
        row = conn.execute(
            sql.SQL("explain (analyze, format json) " + query).format(*arguments)
        ).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read bars or candles."""
    for node in nodes_of(plan):
        relation = node.get("Relation Name", "")
        if node["Node Type"] in SCANS and relation.startswith(BARS_AND_CANDLES):
            yield node


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


def rows_read(node: dict[str, Any]) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])
