"""Loading minute flat files, next to raw COPY of the same rows; and what it is without tickstock."""

import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bench_nightly
from bench_duckdb import Duck, raise_if
from bench_support import Conn, Row, duration, must, seconds

from tickstock.bars import Bar
from tickstock.db.connection import connect, fetch_value
from tickstock.feed.flatfiles import HEADER, read_blocks
from tickstock.simulator import RandomMarket

MONDAY = datetime(2025, 11, 17, 9, 0, tzinfo=UTC)
"""04:00 in New York."""
DAYS = 4
BARS_A_DAY = 598
"""Of one symbol of the random market, about."""
COLUMNS = "(symbol, ts, open, high, low, close, volume, trades)"


def write_files(folder: Path, rows: int) -> list[Path]:
    """So many minute bars of a random market as the vendor writes them: a file a day, by symbol."""
    symbols = max(1, rows // (DAYS * BARS_A_DAY))
    paths = []
    for day in range(DAYS):
        start = MONDAY + timedelta(days=day)
        market = RandomMarket(symbols, seed=day, start=start, end=start + timedelta(hours=16))
        bars = sorted(bar for minute in market.minutes() for bar in minute.bars)
        paths.append(folder / f"{start.date()}.csv")
        with paths[-1].open("w") as file:
            file.writelines(_lines(bars))
    return paths


def _lines(bars: Iterable[Bar]) -> Iterable[str]:
    yield ",".join(HEADER) + "\n"
    for b in bars:
        start = int(b.ts.timestamp()) * 1_000_000_000
        yield f"{b.symbol},{b.volume},{b.open},{b.close},{b.high},{b.low},{start},{b.trades}\n"


def measure(url: str, files: list[Path], folder: Path) -> list[Row]:
    """Raw COPY before and after, for the machine may change its mind meanwhile; the faster one counts.

    Raises InexactError if the candles are not exact after the load.
    """
    prepared = _prepare(files, folder / "prepared.copy")
    with connect(url, program="bench") as conn:
        before = _raw_copy(conn, prepared)
        conn.execute("checkpoint")
        loaded = seconds(lambda: load(url, files))
        after = _raw_copy(conn, prepared)
        number = fetch_value(conn, "select count(*) from ohlcv_1min")
        marks = fetch_value(conn, "select count(*) from tickstock.dirty")
        nightly = seconds(lambda: bench_nightly.build(conn))
        duck = Duck(conn, folder)
        in_duck = seconds(duck.build)
        raise_if(duck.differences())
    raw = min(before, after)
    return [
        Row(
            f"raw COPY of {number:,} bars, no triggers, no candles (the reference)",
            f"{duration(before)} before, {duration(after)} after",
            ratio=f"{number / raw:,.0f}/s",
        ),
        Row(
            f"tickstock load of the same, {len(files)} files: candles exact, {marks:,} half hours live",
            f"{duration(loaded)}, {number / loaded:,.0f}/s",
            must("0.5", raw / loaded >= 0.5),
            f"{raw / loaded:.2f}",
        ),
        Row(
            "instead: raw COPY, then a nightly job, GROUP BY into eight tables",
            f"{duration(raw)} + {duration(nightly)}",
            ratio=f"{raw / (raw + nightly):.2f}, and stale until the next night",
        ),
        Row("instead: the same eight tables by DuckDB, from its own copy", duration(in_duck)),
    ]


def load(url: str, files: list[Path]) -> None:
    """As a user does it, the start of the program included."""
    program = Path(sys.executable).with_name("tickstock")
    subprocess.run(
        [program, "load", *files],
        env={**os.environ, "TICKSTOCK_DATABASE_URL": url},
        capture_output=True,
        check=True,
    )


def _prepare(files: list[Path], target: Path) -> Path:
    """The files' bars as COPY takes them, so that the reference has nothing to convert."""
    with target.open("w") as file:
        for path in files:
            file.writelines(block.copy_text for block in read_blocks(str(path)))
    return target


def _raw_copy(conn: Conn, prepared: Path) -> float:
    _make_raw_table(conn)
    conn.execute("checkpoint")

    def copy() -> None:
        with (
            prepared.open("rb") as file,
            conn.cursor().copy(f"copy raw {COLUMNS} from stdin") as rows,
        ):
            while data := file.read(1 << 17):
                rows.write(data)

    took = seconds(copy)
    conn.execute("drop table raw")
    return took


def _make_raw_table(conn: Conn) -> None:
    """The reference: the same columns, constraints, indexes and chunks as ohlcv_1min, no triggers."""
    conn.execute("create table raw (like ohlcv_1min including all)")
    if conn.execute("select tickstock_engine() <> 'postgres'").fetchone() == (True,):
        conn.execute(
            "select create_hypertable('raw', by_range('ts', interval '7 days'),"
            " create_default_indexes => false)"
        )
