"""DuckDB on the same rows: what a user could do instead, and the judge of our candles.

It shares no code with our SQL. All times in it are New York's, without a zone.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
from bench_support import LARGER, Conn, relation
from psycopg import sql

BUCKETS = {
    "1min": "ts",
    "5min": "time_bucket(interval '5 minutes', ts)",
    "15min": "time_bucket(interval '15 minutes', ts)",
    "30min": "time_bucket(interval '30 minutes', ts)",
    "1hour": "time_bucket(interval '1 hour', ts)",
    "4hour": "time_bucket(interval '4 hours', ts)",
    "daily": "date_trunc('day', ts)",
    "weekly": "date_trunc('week', ts)",
    "monthly": "date_trunc('month', ts)",
}
AGGREGATES = """
  arg_min(open, ts) as open, max(high) as high, min(low) as low, arg_max(close, ts) as close,
  sum(volume) as volume,
  case when count(*) = count(vwap)
    then sum(vwap * volume)::double / nullif(sum(volume), 0)::double end as vwap,
  case when count(*) = count(trades) then sum(trades) end as trades, count(*) as bars"""
COLUMNS = {
    "symbol": "varchar",
    "ts": "timestamp",
    "open": "decimal(18,6)",
    "high": "decimal(18,6)",
    "low": "decimal(18,6)",
    "close": "decimal(18,6)",
    "volume": "decimal(18,6)",
    "vwap": "decimal(18,6)",
    "trades": "bigint",
}
OURS = {**COLUMNS, "vwap": "double", "bars": "bigint"}
TRADING_DAYS = {"opens_at": "timestamp", "closes_at": "timestamp"}
# Sums are exact on both sides; a quotient has no last digit.
DIFFER = """
select count(*) from candles_{0} c full join ours_{0} o using (symbol, ts)
where (c.open, c.high, c.low, c.close, c.volume, c.trades, c.bars)
    is distinct from (o.open, o.high, o.low, o.close, o.volume, o.trades, o.bars)
  or (c.vwap is null) <> (o.vwap is null) or abs(c.vwap - o.vwap) > 1e-9 * o.vwap
"""


class Duck:
    """A DuckDB with the bars of some symbols, or of all."""

    def __init__(self, conn: Conn, folder: Path, symbols: Sequence[str] | None = None) -> None:
        self._conn = conn
        self._folder = folder
        self._symbols = symbols
        self._duck = duckdb.connect()
        self._take("trading_days", sql.Identifier("trading_days"), TRADING_DAYS)
        self._take("bars", relation("1min"), COLUMNS, "order by symbol, ts")

    def build(self) -> None:
        """A table candles_<timeframe> for each larger timeframe, each from the bars."""
        for timeframe in LARGER:
            self._duck.execute(
                f"create table candles_{timeframe} as {_aggregation(timeframe, 'true')}"
            )

    def last_300(self, timeframe: str, symbol: str) -> None:
        query = f"{_aggregation(timeframe, 'symbol = ?')} order by 2 desc limit 300"
        self._duck.execute(query, (symbol,)).fetchall()

    def differences(self) -> list[str]:
        """Timeframes whose candles are not those of build(), with how many candles differ."""
        wrong = []
        for timeframe in LARGER:
            self._take(f"ours_{timeframe}", relation(timeframe), OURS)
            row = self._duck.execute(DIFFER.format(timeframe)).fetchone()
            assert row
            if row[0]:
                wrong.append(f"{row[0]:,} of {timeframe}")
        return wrong

    def _take(
        self, name: str, source: sql.Identifier, columns: dict[str, str], order: str = ""
    ) -> None:
        """Our rows, by way of a file."""
        path = self._folder / f"{name}.csv"
        with (
            path.open("wb") as file,
            self._conn.cursor().copy(self._export(source, columns)) as copy,
        ):
            file.writelines(copy)
        self._duck.execute(
            f"create table {name} as from read_csv('{path}', header=false, columns={columns}) {order}"
        )
        path.unlink()

    def _export(self, source: sql.Identifier, columns: dict[str, str]) -> sql.Composed:
        local = sql.SQL("{0} at time zone 'America/New_York'")
        of_symbols = sql.SQL("where symbol = any ({})").format(list(self._symbols or ()))
        return sql.SQL("copy (select {} from {} {}) to stdout (format csv)").format(
            sql.SQL(", ").join(
                local.format(sql.Identifier(name)) if kind == "timestamp" else sql.Identifier(name)
                for name, kind in columns.items()
            ),
            source,
            of_symbols if self._symbols and "symbol" in columns else sql.SQL(""),
        )


def _aggregation(timeframe: str, condition: str) -> str:
    regular = timeframe in ("daily", "weekly", "monthly")
    return f"""
        select symbol, {BUCKETS[timeframe]} as ts, {AGGREGATES} from bars
        {"join trading_days on ts >= opens_at and ts < closes_at" if regular else ""}
        where {condition} group by 1, 2"""


class InexactError(Exception):
    """Candles are not the aggregation of the bars."""


def check(conn: Conn, folder: Path, symbols: Sequence[str]) -> None:
    """Compare all candles of these symbols with DuckDB's. Raises InexactError."""
    duck = Duck(conn, folder, symbols)
    duck.build()
    raise_if(duck.differences())


def raise_if(differences: list[str]) -> None:
    if differences:
        raise InexactError(
            f"candles differ from the aggregation of the bars: {', '.join(differences)}"
        )
