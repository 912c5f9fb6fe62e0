"""Bars and candles, measured against what they must reach and what one would do instead."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import bench_bursts
import bench_columnstore
import bench_cross_sections
import bench_late_rows
import bench_load
import bench_reads
import bench_sustained
import click
from bench_market import Market
from bench_support import (
    Row,
    database,
    duration,
    engine_option,
    installations,
    make_console,
    running,
    seconds,
    show,
)

from tickstock.db.connection import fetch_value

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@click.command()
@engine_option
@click.option("--bars", default=20_000_000, show_default=True, help="Bars in the table.")
@click.option(
    "--symbols",
    default=10_000,
    show_default=True,
    type=click.IntRange(min=200),
    help="Symbols that trade live; a tenth of them has a history.",
)
@click.option("--load-rows", default=2_000_000, show_default=True, help="Bars in the flat files.")
@click.option("--dirty", default=10_000, show_default=True, help="Corrections before the reads.")
@click.option(
    "--minutes",
    default=60,
    show_default=True,
    type=click.IntRange(min=4),
    help="Minutes of the sustained run.",
)
@click.option(
    "--real-data",
    default=REAL_DATA,
    type=click.Path(path_type=Path),
    help="Folder of the vendor's minute flat files, minute_aggs_*.csv.gz.",
)
def main(
    engines: tuple[str, ...],
    bars: int,
    symbols: int,
    load_rows: int,
    dirty: int,
    minutes: int,
    real_data: Path,
) -> None:
    """Measure bars and candles on every engine that this machine has.

    Candles are compared with DuckDB's aggregation of the same bars; the bench fails if they differ.
    """
    console = make_console()
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = bench_load.write_files(folder, load_rows)
        for installation in installations(engines):
            console.rule(str(installation), align="left")
            with running(installation) as dsn:
                with database(dsn, "load") as url:
                    show(console, "Load", bench_load.measure(url, files, folder))
                with database(dsn, "market") as url:
                    market = Market(url, bars=bars, symbols=symbols)
                    for title, rows in measure_market(market, folder, dirty, minutes):
                        show(console, title, rows)
                with database(dsn, "real") as url:
                    show(console, "On disk", bench_columnstore.measure(url, real_data))


def measure_market(
    market: Market, folder: Path, dirty: int, minutes: int
) -> Iterator[tuple[str, list[Row]]]:
    """All that is measured on one long history, in this order."""
    took = seconds(market.fill)
    number = fetch_value(market.conn, "select count(*) from ohlcv_1min")
    days = len(market.sessions)
    what = f"{number:,} bars made in SQL: {len(market.old_symbols):,} symbols on {days} days, with candles"
    yield "History", [Row(what, f"{duration(took)}, {number / took:,.0f}/s")]
    yield "Bursts", bench_bursts.measure(market, folder)
    yield "All symbols at once", bench_cross_sections.measure(market)
    yield "Reads", bench_reads.measure(market, folder, dirty)
    yield "Late rows", bench_late_rows.measure(market)
    yield "Sustained", bench_sustained.measure(market, folder, minutes)
    market.conn.close()


if __name__ == "__main__":
    main()
