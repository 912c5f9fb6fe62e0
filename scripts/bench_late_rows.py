"""One late row among many symbols: when it shows, and what it costs to repair its candles."""

from decimal import Decimal

from bench_duckdb import InexactError
from bench_market import Market
from bench_support import Latencies, Row, duration, must, relation, seconds
from psycopg import sql

from tickstock.bars import Bar
from tickstock.timeframes import TIMEFRAMES

ROWS = 20
TOGETHER = 100
# The nine candles that hold one minute.
VOLUMES = sql.SQL(" union all ").join(
    sql.SQL(
        "select volume from {1} where symbol = %(symbol)s and ts = candle_start({0}, %(ts)s)"
    ).format(timeframe, relation(timeframe))
    for timeframe in TIMEFRAMES
)


def measure(market: Market) -> list[Row]:
    market.refresh()
    visible, repair = Latencies([]), Latencies([])
    for _ in range(ROWS):
        visible.times.append(_write_and_read(market, market.late_bar()))
        repair.times.append(seconds(market.refresh))
    for _ in range(TOGETHER):
        market.write([market.late_bar()])
    together = seconds(market.refresh)
    return [
        Row(
            f"one late row among {len(market.symbols):,} symbols written, then read in all timeframes",
            str(visible),
            "next statement",
        ),
        Row(
            "  its repair, a refresh for it alone",
            str(repair),
            must("p50 < 100 ms", repair.median < 0.1),
        ),
        Row(
            f"  the repair of one of {TOGETHER} that came one by one, in one refresh",
            duration(together / TOGETHER),
            must("< 100 ms", together / TOGETHER < 0.1),
        ),
    ]


def _write_and_read(market: Market, bar: Bar) -> float:
    """How long writing and the next statement took. Raises InexactError if that does not show it."""
    before = _volumes(market, bar)
    after: list[Decimal] = []

    def write_and_read() -> None:
        market.write([bar])
        after.extend(_volumes(market, bar))

    took = seconds(write_and_read)
    change = Decimal(bar.volume) - before[0]
    if after != [volume + change for volume in before]:
        raise InexactError(f"{bar} does not show at once: volumes were {before}, are {after}")
    return took


def _volumes(market: Market, bar: Bar) -> list[Decimal]:
    rows = market.conn.execute(VOLUMES, {"symbol": bar.symbol, "ts": bar.ts}).fetchall()
    return [volume for (volume,) in rows]
