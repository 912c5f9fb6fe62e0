"""What a user does without tickstock, in SQL: a nightly job, and aggregation on the fly."""

from datetime import timedelta

from bench_support import Conn
from psycopg import sql

WIDTHS = {
    "1min": timedelta(minutes=1),
    "5min": timedelta(minutes=5),
    "15min": timedelta(minutes=15),
    "30min": timedelta(minutes=30),
    "1hour": timedelta(hours=1),
    "4hour": timedelta(hours=4),
}
AGGREGATES = sql.SQL(
    "(array_agg(b.open order by b.ts))[1] as open, max(b.high) as high, min(b.low) as low,"
    " (array_agg(b.close order by b.ts desc))[1] as close, sum(b.volume) as volume,"
    " sum(b.trades)::bigint as trades, sum(b.bars)::integer as bars"
)
REGULAR = sql.SQL(
    "join trading_days d on d.day = (b.ts at time zone 'America/New_York')::date"
    " and b.ts >= d.opens_at and b.ts < d.closes_at"
)
NOTHING = sql.SQL("")


def build(conn: Conn) -> None:
    """A table nightly_<timeframe> for each larger timeframe, each from a shorter one."""
    for timeframe, made_from in conn.execute(
        "select timeframe, made_from from timeframes where made_from is not null order by position"
    ).fetchall():
        name = sql.Identifier(f"nightly_{timeframe}")
        source = "ohlcv_1min" if made_from == "1min" else f"nightly_{made_from}"
        conn.execute(
            sql.SQL(
                "create table {} as select b.symbol, candle_start({}, b.ts) as ts, {}"
                " from {} b {} group by 1, 2"
            ).format(
                name,
                timeframe,
                AGGREGATES,
                sql.Identifier(source),
                REGULAR if timeframe == "daily" else NOTHING,
            )
        )
        conn.execute(sql.SQL("alter table {} add primary key (symbol, ts)").format(name))


def on_the_fly(timeframe: str) -> sql.Composed:
    """The last 300 candles of a symbol, from its bars; parameters: the symbol, the feed's clock.

    Intraday with a lower bound that holds 300 candles of the regular session, or it would read all.
    """
    regular = timeframe not in WIDTHS
    return sql.SQL(
        "select b.symbol, candle_start({}, b.ts) as ts, {} from ohlcv_1min b {}"
        " where b.symbol = %s and b.ts >= %s::timestamptz - interval {}"
        " group by 1, 2 order by 2 desc limit 300"
    ).format(timeframe, AGGREGATES, REGULAR if regular else NOTHING, days_of_300(timeframe))


def days_of_300(timeframe: str) -> str:
    """An interval that holds 300 candles of the regular session; for days and more, all time."""
    width = WIDTHS.get(timeframe)
    days = 3 + 7 / 5 * (300 * width / timedelta(hours=6.5)) if width else 100_000
    return f"{days:.0f} days"
