"""All symbols minute by minute, as fast as it goes, with a refresher beside: does anything swell?"""

from itertools import pairwise
from pathlib import Path

from bench_duckdb import check
from bench_market import Market
from bench_support import Beside, Conn, Latencies, Row, duration, seconds

# Bytes of tables and indexes. Chunks are the children of their hypertable.
SIZES = """
with recursive part (relation, part) as (
  select relation, stored_in::oid from tickstock.storage
  union all
  select p.relation, i.inhrelid from part p join pg_inherits i on i.inhparent = p.part
)
select case when t.timeframe is null then 'dirty queue' when t.position = 1 then 'bars' else 'candles' end,
  sum(pg_table_size(part))::bigint, sum(pg_indexes_size(part))::bigint
from part left join timeframes t on relation = 'ohlcv_' || t.timeframe
where t.timeframe is not null or relation = 'tickstock.dirty'
group by 1
"""
Sizes = dict[str, tuple[int, int]]


def measure(market: Market, folder: Path, minutes: int) -> list[Row]:
    """Raises InexactError if candles are not exact at the end."""
    half = minutes // 2
    market.refresh()
    market.conn.execute("vacuum")
    sizes = [_sizes(market.conn)]
    queue = [sizes[0]["dirty queue"]]
    writes, refreshes, last = [], [], []
    for _ in range(2):
        with Beside(market.url, _refresh) as refresher:
            writes.append(Latencies([_write(market, queue) for _ in range(half)]))
        refreshes.append(refresher.latencies)
        last.append(seconds(market.refresh))
        sizes.append(_sizes(market.conn))
    check(market.conn, folder, market.some_symbols())
    new_bars = half * len(market.symbols)
    return [
        Row(
            f"{len(market.symbols):,} symbols a minute, {2 * half} minutes at a stretch: first half",
            str(writes[0]),
        ),
        Row("  second half", str(writes[1])),
        Row(f"  refreshes beside, first half: {len(refreshes[0].times)}", str(refreshes[0])),
        Row(f"  second half: {len(refreshes[1].times)}", str(refreshes[1])),
        Row("  refresh after each half", f"{duration(last[0])}, {duration(last[1])}"),
        Row(
            "  bytes for each new bar, table and indexes: first half",
            _growth(sizes, "bars", 0, new_bars),
        ),
        Row("  second half", _growth(sizes, "bars", 1, new_bars)),
        Row("  the same for candles: first half", _growth(sizes, "candles", 0, new_bars)),
        Row("  second half", _growth(sizes, "candles", 1, new_bars)),
        Row("  dirty queue, table and indexes: at the begin", _megabytes(queue[0])),
        Row("  at its largest", _megabytes(max(queue, key=sum))),
        Row("  at the end, refreshed and vacuumed", _megabytes(_vacuumed(market.conn))),
    ]


def _write(market: Market, queue: list[tuple[int, int]]) -> float:
    bars = market.next_minute()
    took = seconds(lambda: market.write(bars))
    queue.append(_sizes(market.conn)["dirty queue"])
    return took


def _refresh(conn: Conn) -> None:
    conn.execute("call ohlcv_refresh()")


def _sizes(conn: Conn) -> Sizes:
    return {name: (table, indexes) for name, table, indexes in conn.execute(SIZES)}


def _vacuumed(conn: Conn) -> tuple[int, int]:
    """As autovacuum would leave it."""
    conn.execute("vacuum tickstock.dirty")
    return _sizes(conn)["dirty queue"]


def _growth(sizes: list[Sizes], name: str, half: int, new_bars: int) -> str:
    before, after = list(pairwise(sizes))[half]
    table, indexes = ((b - a) / new_bars for a, b in zip(before[name], after[name], strict=True))
    return f"{table:,.0f} + {indexes:,.0f}"


def _megabytes(size: tuple[int, int]) -> str:
    return f"{size[0] / 1e6:.1f} + {size[1] / 1e6:.1f} MB"
