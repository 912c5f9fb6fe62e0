"""What a bar of real data takes on disk, as rows and in the columnstore."""

from pathlib import Path
from typing import LiteralString

from bench_load import load
from bench_support import Row, must
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.db.connection import connect, fetch_value

COPIES = 100
# Compression works within a symbol, so copies under other names gain nothing from each other; but as in a
# market of many symbols, the fixed size of a chunk's tables and indexes is shared by many bars.
COPY = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select symbol || '.' || n, ts, open, high, low, close, volume, vwap, trades
from real_bars cross join generate_series(1, %s) n order by 1, 2
"""
# A chunk holds the bars from Thursday to Wednesday. The real days are a Friday and the week after it, so they
# fill none: their Thursday is taken for the one before, and their second Friday is left out.
WHOLE_WEEK = """
delete from real_bars where ts >= timestamp '2013-10-11' at time zone 'America/New_York';
update real_bars set ts = ts - interval '7 days'
where ts >= timestamp '2013-10-10' at time zone 'America/New_York';
"""
SIZE = "select bytes from tickstock.relation_sizes where relation = 'ohlcv_1min'"


def measure(url: str, folder: Path) -> list[Row]:
    """Of the vendor's minute flat files in this folder."""
    files = sorted(folder.glob("minute_aggs_*.csv*"))
    if not files:
        return [Row("bytes a bar, real data: none here, see --real-data", "not measured")]
    with connect(url, program="bench") as conn:
        load(url, files)
        conn.execute("set tickstock.scan_queue = off")
        conn.execute("create temp table real_bars as table ohlcv_1min")
        split = _sizes(
            conn, "three real symbols on six days, in a chunk of four and one of two", None
        )
        conn.execute(WHOLE_WEEK)
        return _sizes(conn, "three real symbols on five days, which fill a chunk", 15) + split


def _sizes(conn: Connection[TupleRow], what: LiteralString, bound: int | None) -> list[Row]:
    """Of the real bars under many names."""
    conn.execute("truncate ohlcv_1min")
    conn.execute(COPY, (COPIES,))
    conn.execute("vacuum full ohlcv_1min")
    number = fetch_value(conn, "select count(*) from ohlcv_1min")
    rows = fetch_value(conn, SIZE) / number
    what = (
        f"bytes a bar with all indexes, {number:,} bars: {what}, under {COPIES} names each; as rows"
    )
    result = [Row(what, f"{rows:.1f}")]
    if fetch_value(conn, "select tickstock_engine()") == "community":
        conn.execute("call tickstock.to_columnstore(now())")
        columns = fetch_value(conn, SIZE) / number
        verdict = must(f"≤ {bound}", columns <= bound) if bound else ""
        result.append(Row("  in the columnstore", f"{columns:.1f}", verdict))
    return result
