"""What a bar of real data takes on disk, as rows and in the columnstore."""

from pathlib import Path

from bench_load import load
from bench_support import Row, must

from tickstock.db.connection import connect, fetch_value

COPIES = 100
# Compression works within a symbol, so copies under other names gain nothing from each other; but as in a
# market of many symbols, the fixed size of a chunk's tables and indexes is shared by many bars.
COPY = """
insert into ohlcv_1min (symbol, ts, open, high, low, close, volume, vwap, trades)
select symbol || '.' || n, ts, open, high, low, close, volume, vwap, trades
from ohlcv_1min cross join generate_series(2, %s) n order by 1, 2
"""
SIZE = "select bytes from tickstock.relation_sizes where relation = 'ohlcv_1min'"


def measure(url: str, folder: Path) -> list[Row]:
    """Of the vendor's minute flat files in this folder."""
    files = sorted(folder.glob("minute_aggs_*.csv*"))
    if not files:
        return [Row("bytes a bar, real data: none here, see --real-data", "not measured")]
    with connect(url, program="bench") as conn:
        load(url, files)
        symbols = fetch_value(conn, "select count(distinct symbol) from ohlcv_1min")
        conn.execute("set tickstock.scan_queue = off")
        conn.execute(COPY, (COPIES,))
        number = fetch_value(conn, "select count(*) from ohlcv_1min")
        conn.execute("vacuum full ohlcv_1min")
        rows = fetch_value(conn, SIZE) / number
        conn.execute("call tickstock.to_columnstore(now())")
        columns = fetch_value(conn, SIZE) / number
        what = (
            f"bytes a bar with all indexes, {number:,} bars: {symbols} real symbols"
            f" under {COPIES} names each"
        )
        result = [Row(f"{what}; as rows", f"{rows:.1f}")]
        if fetch_value(conn, "select tickstock_engine()") == "community":
            result.append(
                Row("  in the columnstore", f"{columns:.1f}", must("≤ 15", columns <= 15))
            )
    return result
