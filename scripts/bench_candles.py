"""What bars and candles cost: loading, a minute's burst, refreshing, reading, a late row."""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

import click
from psycopg import Connection, sql
from psycopg.rows import TupleRow
from rich.console import Console
from rich.table import Table

from tickstock.bars import Bar
from tickstock.db.connection import connect
from tickstock.db.migrate import migrate
from tickstock.db.writer import write_bars
from tickstock.embedded.installations import Installation, find_installations
from tickstock.embedded.server import EmbeddedServer, dsn_for
from tickstock.simulator import RandomMarket
from tickstock.timeframes import TIMEFRAMES

OPENING = datetime(2025, 11, 24, 14, 30, tzinfo=UTC)
BATCH = 100_000
BURST_SYMBOLS = 10_000
REPEATS = 3
READS = 300


class Bench:
    """One engine's figures, as rows of a table."""

    def __init__(self, conn: Connection[TupleRow], bars: list[Bar]) -> None:
        self.rows: list[tuple[str, str, str]] = []
        self._conn = conn
        self._bars = bars
        self._random = random.Random(0)

    def run(self) -> None:
        reference = self._seconds(self._raw_copy)
        load = self._seconds(self._load)
        refresh = self._seconds(lambda: self._conn.execute("call ohlcv_refresh()"))
        self._add("raw COPY, same keys, no triggers (the reference)", reference, len(self._bars), 1)
        self._add("load, merged and counted", load, len(self._bars), reference / load)
        both = load + refresh
        self._add("load and all candles materialized", both, len(self._bars), reference / both)
        self._conn.execute("vacuum analyze ohlcv_1min")
        self._burst()
        self._reads()
        self._late_row()

    def _raw_copy(self) -> None:
        self._conn.execute("create temp table raw (like ohlcv_1min including all)")
        columns = "copy raw (symbol, ts, open, high, low, close, volume, vwap, trades) from stdin"
        with self._conn.transaction(), self._conn.cursor().copy(columns) as copy:
            for bar in self._bars:
                copy.write_row(bar)

    def _load(self) -> None:
        bars = iter(self._bars)
        while batch := list(islice(bars, BATCH)):
            write_bars(self._conn, batch, source="bench", queue_for_scan=False)

    def _burst(self) -> None:
        """Every symbol's bar of one minute; then the half hour ends, and all of it is refreshed."""
        market = RandomMarket(BURST_SYMBOLS, seed=2, start=OPENING + timedelta(days=1))
        minutes = list(islice(market.minutes(), REPEATS + 1))
        times = [
            self._seconds(partial(write_bars, self._conn, minute.bars, source="bench"))
            for minute in minutes
        ]
        number = len(minutes[-1].bars)
        self._add("a minute's burst, exact in all timeframes", statistics.median(times), number)
        idle = self._seconds(lambda: self._conn.execute("call ohlcv_refresh()"))
        self._add("refresh while the half hour is forming", idle, number)
        later = minutes[-1].bars[0]._replace(ts=OPENING + timedelta(days=1, hours=1))
        write_bars(self._conn, [later], source="bench")
        closed = self._seconds(lambda: self._conn.execute("call ohlcv_refresh()"))
        self._add("refresh when it has ended", closed, number)

    def _reads(self) -> None:
        symbols = sorted({bar.symbol for bar in self._bars})
        times = []
        for _ in range(READS):
            query = sql.SQL("select * from {} where symbol = %s order by ts desc limit 300").format(
                sql.Identifier(f"ohlcv_{self._random.choice(TIMEFRAMES)}")
            )
            symbol = self._random.choice(symbols)
            times.append(self._seconds(partial(self._fetch, query, symbol)))
        cuts = statistics.quantiles(times, n=100)
        self._add("last 300 candles of a symbol, any timeframe: p50", cuts[49])
        self._add("last 300 candles of a symbol, any timeframe: p99", cuts[98])

    def _late_row(self) -> None:
        late = self._bars[0]

        def correct_and_read() -> None:
            write_bars(self._conn, [late._replace(volume=late.volume + 1)], source="bench")
            self._fetch(sql.SQL("select * from ohlcv_monthly where symbol = %s"), late.symbol)

        self._add(
            "a late correction, written and read in the month", self._seconds(correct_and_read)
        )
        repair = self._seconds(lambda: self._conn.execute("call ohlcv_refresh()"))
        self._add("its refresh", repair)

    def _fetch(self, query: sql.SQL | sql.Composed, symbol: str) -> None:
        self._conn.execute(query, (symbol,)).fetchall()

    def _add(self, what: str, seconds: float, rows: int = 0, ratio: float = 0) -> None:
        rate = f", {rows / seconds:,.0f} rows/s" if rows else ""
        self.rows.append((what, f"{seconds * 1000:,.1f} ms{rate}", f"{ratio:.2f}" if ratio else ""))

    @staticmethod
    def _seconds(work: Callable[[], object]) -> float:
        before = time.perf_counter()
        work()
        return time.perf_counter() - before


@contextmanager
def database(installation: Installation) -> Iterator[Connection[TupleRow]]:
    """An empty, migrated database on a durable server of our own; removed afterwards."""
    server = EmbeddedServer(installation, "bench")
    try:
        with server.attached() as dsn:
            migrate(dsn_for(dsn, "postgres"))
            with connect(dsn, program="bench") as conn:
                yield conn
    finally:
        server.destroy()


@click.command()
@click.option(
    "--symbols", default=2_000, show_default=True, help="Symbols of the day that is loaded."
)
@click.option("--minutes", default=390, show_default=True, help="Minutes of that day.")
@click.option("--engine", "engines", multiple=True, help="Only this engine; may be repeated.")
def main(symbols: int, minutes: int, engines: tuple[str, ...]) -> None:
    """Measure bars and candles on every engine that this machine has."""
    market = RandomMarket(symbols, seed=1, start=OPENING)
    bars = [bar for minute in islice(market.minutes(), minutes) for bar in minute.bars]
    console = Console(highlight=False)
    seen: set[str] = set()
    for installation in find_installations():
        if installation.engine in seen or (engines and installation.engine not in engines):
            continue
        seen.add(installation.engine)
        with database(installation) as conn:
            bench = Bench(conn, bars)
            bench.run()
        console.print(f"{installation}: {len(bars):,} bars of {symbols:,} symbols", soft_wrap=True)
        table = Table(box=None)
        table.add_column("what", no_wrap=True)
        table.add_column("took", justify="right")
        table.add_column("ratio", justify="right")
        for row in bench.rows:
            table.add_row(*row)
        console.print(table, soft_wrap=True)


if __name__ == "__main__":
    main()
