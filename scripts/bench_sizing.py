"""What a market of so many symbols needs: disk for a day, memory, and the database's work for a minute.

A day of all symbols is made in SQL and refreshed; then ingest and scan run on the simulator's market
for some minutes, on top of that day, so that patterns have full windows.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from bench_market import FILL, HISTORY, LIVE_SINCE, MINUTES_A_DAY
from bench_support import (
    Conn,
    Program,
    database,
    engine_option,
    installations,
    make_console,
    running,
)
from rich.table import Table

from tickstock.db.connection import connect, fetch_value
from tickstock.simulator import ticker_symbols

OPENING = LIVE_SINCE.replace(hour=14, minute=30)
PATIENCE = 120.0
"""Seconds after which something that must happen has not happened."""
PORT = 18_765
SPEEDS = {100: 60, 1_000: 30, 10_000: 6}
"""How many times faster than real time a market of so many symbols runs, so that a scanner can follow."""
BYTES = """
select sum(bytes) filter (where relation = 'ohlcv_1min')::float,
  sum(bytes) filter (where relation <> 'ohlcv_1min' and relation like 'ohlcv\\_%')::float
from tickstock.relation_sizes
"""
SCANNED = "select not exists (select from tickstock.scan_queue where ready_at <= latest_minute())"

Figures = dict[str, str]


class LateError(click.ClickException):
    """The market did not come as far as it must."""


@click.command()
@engine_option
@click.option("--symbols", multiple=True, type=int, default=tuple(SPEEDS), show_default=True)
@click.option("--minutes", default=6, show_default=True, help="Of the live market, for each size.")
def main(engines: tuple[str, ...], symbols: tuple[int, ...], minutes: int) -> None:
    """Disk, memory and the database's work for markets of different sizes."""
    console = make_console()
    for installation in installations(engines):
        found: dict[int, Figures] = {}
        with running(installation) as dsn:
            for number in symbols:
                with database(dsn, "sizing") as url, TemporaryDirectory() as folder:
                    found[number] = measure(url, Path(folder), number, minutes)
        table = Table(title=str(installation), title_justify="left", box=None)
        table.add_column("what")
        for number in symbols:
            table.add_column(f"{number:,} symbols", justify="right")
        for what in found[symbols[0]]:
            table.add_row(what, *(figures[what] for figures in found.values()))
        console.print(table)


def measure(url: str, folder: Path, number: int, minutes: int) -> Figures:
    """What one market needs."""
    with connect(url, program="bench") as conn:
        fill(conn, number)
        day = number * MINUTES_A_DAY
        rows = conn.execute(BYTES).fetchone()
        figures = {"bars of a day (390 minutes, each with a bar)": f"{day:,}"}
        figures |= live(conn, url, folder, number, minutes)
        bars = fetch_value(conn, "select count(*) from ohlcv_1min")
        conn.execute("call ohlcv_refresh()")
        conn.execute("call tickstock.to_columnstore('infinity')")
        columns = conn.execute(BYTES).fetchone()
        has_columnstore = fetch_value(conn, "select tickstock_engine()") == "community"
    assert rows
    assert columns
    for nth, what in enumerate(("bars", "candles")):
        figures[f"{what} of a day, MB, with indexes"] = megabytes(rows[nth])
        figures["  in the columnstore" + " " * nth] = (
            megabytes(columns[nth] / bars * day) if has_columnstore else "none"
        )
    return figures


def fill(conn: Conn, number: int) -> None:
    """The Friday before, with its candles."""
    conn.execute("set tickstock.scan_queue = off")
    for opening, _ in conn.execute(HISTORY, (LIVE_SINCE, 1)).fetchall():
        conn.execute(FILL, {"symbols": list(ticker_symbols(number)), "opening": opening})
    # Another half hour has begun: all candles of the day are made.
    conn.execute(
        "insert into ohlcv_1min (symbol, ts, open, high, low, close, volume)"
        " values ('NOW', %s, 1, 1, 1, 1, 1)",
        (OPENING - timedelta(hours=1),),
    )
    conn.execute("call ohlcv_refresh()")
    conn.execute("vacuum analyze")
    conn.execute("checkpoint")


def live(conn: Conn, url: str, folder: Path, number: int, minutes: int) -> Figures:
    """Ingest and scan follow the simulator; counted from the first minute that is scanned."""
    settings = {"TICKSTOCK_DATABASE_URL": url, "MASSIVE_API_KEY": "simulator"}
    speed = SPEEDS.get(number) or min(60, 60_000 / number)
    with ExitStack() as stack:

        def start(*arguments: str) -> Program:
            program = Program(folder, *arguments, **settings)
            stack.callback(program.stop)
            return program

        market = ("--symbols", str(number), "--speed", str(speed), "--port", str(PORT))
        start("simulate", *market, "--start", f"{OPENING:%Y-%m-%dT%H:%M}")
        until(listens, "the simulator listens")  # else ingest ends: no feed at its start
        scan = start("scan")
        ingest = start("ingest", "--symbols", "*", "--feed-url", f"ws://127.0.0.1:{PORT}/stocks")
        wait(conn, "select latest_minute() >= %s and (" + SCANNED + ")", OPENING)
        began, cpu, wal = at(conn)
        wait(conn, "select latest_minute() >= %s", began + timedelta(minutes=minutes))
        wait(conn, SCANNED)
        ended, cpu_then, wal_then = at(conn)
        memory = ingest.memory(), scan.memory()
    passed = (ended - began) / timedelta(minutes=1)
    bars = fetch_value(
        conn, "select count(*) from ohlcv_1min where ts > %s and ts <= %s", began, ended
    )
    return {
        "bars a minute of the simulator": f"{bars / passed:,.0f}",
        "database, CPU seconds for a minute of market": f"{(cpu_then - cpu) / passed:.2f}",
        "write-ahead log for a minute, MB": f"{(wal_then - wal) / passed / 1e6:.1f}",
        "ingest, peak memory, MB": f"{memory[0]:.0f}",
        "scan, peak memory, MB": f"{memory[1]:.0f}",
    }


def wait(conn: Conn, query: str, *params: object) -> None:
    """Until the answer is true."""
    until(lambda: conn.execute(query.encode(), params).fetchone() == (True,), query)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise LateError(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.25)


def listens() -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", PORT)) == 0


def at(conn: Conn) -> tuple[Any, float, float]:
    """The feed's time, the server's CPU seconds and its bytes of write-ahead log, so far."""
    minute, wal = conn.execute(
        "select latest_minute(), (pg_current_wal_insert_lsn() - '0/0')::float"
    ).fetchone() or (None, 0)
    return minute, cpu_seconds(conn.info.backend_pid), wal


def cpu_seconds(backend: int) -> float:
    """Of the server that this process belongs to, with all its processes that are and were."""
    postmaster = int(stat(backend)[1])
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
    children = [stat(pid) for pid in pids]
    ticks = sum(map(int, stat(postmaster)[11:15]))  # of its own, and of those that have ended
    ticks += sum(sum(map(int, each[11:13])) for each in children if each[1] == str(postmaster))
    return ticks / os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: the second is the parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended
        return ["", ""]


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f}"


if __name__ == "__main__":
    main()
