"""Queries over all symbols at once, while candles of all timeframes form."""

from typing import LiteralString

from bench_market import Market
from bench_nightly import AGGREGATES
from bench_support import Latencies, Row, seconds
from psycopg import sql

MINUTES = 3
READS = 20
QUERIES: tuple[LiteralString, ...] = (
    "select * from latest_candles('daily')",
    "select * from latest_candles('5min')",
    "select * from ohlcv_15min where ts > latest_minute() - interval '1 hour'",
    "select * from latest_prices()",
    "select * from top_movers()",
)
DAY_ON_THE_FLY = sql.SQL("""
select b.symbol, d.opens_at, {} from ohlcv_1min b
join trading_days d on d.opens_at = %s and b.ts >= d.opens_at and b.ts < d.closes_at
group by 1, 2
""").format(AGGREGATES)


def measure(market: Market) -> list[Row]:
    """After some minutes of all symbols, which nobody has refreshed yet."""
    for _ in range(MINUTES):
        live = market.next_minute()
        market.write(live)
    reads = [
        Row(
            f"{query.removeprefix('select * from ')}, {len(live):,} symbols",
            str(_times(market, query)),
        )
        for query in QUERIES
    ]
    opening = market.conn.execute(
        "select max(opens_at) from trading_days where opens_at <= feed_clock()"
    ).fetchone()
    on_the_fly = _times(market, DAY_ON_THE_FLY, opening)
    return [
        *reads,
        Row(
            "instead of the first: aggregated on the fly from the day's bars so far",
            str(on_the_fly),
        ),
    ]


def _times(
    market: Market,
    query: LiteralString | sql.Composed,
    parameters: tuple[object, ...] | None = None,
) -> Latencies:
    def read() -> None:
        market.conn.execute(query, parameters).fetchall()

    read()  # a session's first plan
    return Latencies([seconds(read) for _ in range(READS)])
