"""The scanner's hot queries read a symbol's last candles, whatever else there is."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from tests.scan.support import new_york
from tickstock.db.connection import fetch_value
from tickstock.scan.scanner import PLAN_FOR_GROWTH

LENGTH = 20
MOST_ROWS = 250
"""Read for one symbol's window, of its 2,000 bars: the window, what bounds it, and changed candles."""

LOAD = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)
select 'S' || s, opens_at + m * interval '1 minute', 10, 11, 9, 10, 100
from generate_series(1, 10) s, trading_days, generate_series(0, 49) m
where day between %s and %s order by 1, 2
"""
SCANS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan"}
BARS_AND_CANDLES = ("ohlcv_1min", "candles_", "_hyper_")


@pytest.fixture
def loaded(conn: Connection[TupleRow]) -> Connection[TupleRow]:
    """20,500 bars of ten symbols in 41 days; of the last day no candles have been made yet."""
    conn.execute("set tickstock.scan_queue = off")
    conn.execute(LOAD, ("2025-09-26", "2025-11-20"))
    conn.execute("call ohlcv_refresh()")
    conn.execute(LOAD, ("2025-11-21", "2025-11-21"))
    assert fetch_value(conn, "select count(*) from ohlcv_1min") == 20_500
    assert fetch_value(conn, "select count(distinct granule) from tickstock.dirty") >= 2
    return conn


@pytest.mark.parametrize("timeframe", ["1min", "5min", "daily"])
def test_a_window_is_read_by_index(timeframe: str, loaded: Connection[TupleRow]) -> None:
    last = new_york("2025-11-21 00:00" if timeframe == "daily" else "2025-11-21 10:15")
    nodes = list(scans(explain(loaded, timeframe, last)))
    assert nodes
    for node in nodes:
        assert node["Node Type"] != "Seq Scan", node
        assert "symbol" in (node.get("Index Cond") or node.get("Recheck Cond")), node
    assert LENGTH <= sum(map(rows_read, nodes)) <= MOST_ROWS


def explain(conn: Connection[TupleRow], timeframe: str, end: datetime) -> dict[str, Any]:
    query = sql.SQL(
        "explain (analyze, format json) select * from {}(array['S7'], array[{}], {})"
    ).format(sql.Identifier("tickstock", f"windows_{timeframe}"), end, LENGTH)
    with conn.transaction():
        conn.execute(PLAN_FOR_GROWTH)
        row = conn.execute(query).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    assert plan["Actual Rows"] == 1
    return plan


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read bars or candles."""
    relation = plan.get("Relation Name", "")
    if plan["Node Type"] in SCANS and relation.startswith(BARS_AND_CANDLES):
        yield plan
    for child in plan.get("Plans", ()):
        yield from scans(child)


def rows_read(node: dict[str, Any]) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])
