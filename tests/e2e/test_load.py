"""`tickstock load`: the vendor's flat files, whole, broken and repeated."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tickstock.bars import Bar
from tickstock.db.connection import fetch_value

from .hardship import market
from .program import run, run_with_input

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

HEADER = "ticker,volume,open,close,high,low,window_start,transactions"
BARS = [bar for minute in market(20, 120).minutes() for bar in minute.bars]
QUERY = "select symbol, ts, open, high, low, close, volume, vwap, trades from ohlcv_1min"


def flat_file(bars: Sequence[Bar]) -> bytes:
    lines = (
        f"{b.symbol},{b.volume},{b.open},{b.close},{b.high},{b.low},"
        f"{int(b.ts.timestamp())}000000000,{b.trades}"
        for b in bars
    )
    return "\n".join([HEADER, *lines, ""]).encode()


def numbers(count: int, *, new: int = 0, unchanged: int = 0, refused: int = 0) -> str:
    return (
        f"{count:,} bars = {new:,} new + 0 replaced + {unchanged:,} unchanged + {refused:,} refused"
    )


def test_a_file_loaded_twice_then_zipped_then_from_standard_input(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    plain, zipped = tmp_path / "day.csv", tmp_path / "day.csv.gz"
    plain.write_bytes(flat_file(BARS))
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    settings, count = {"TICKSTOCK_DATABASE_URL": url}, len(BARS)

    first = run("load", str(plain), **settings)
    assert (first.returncode, first.stdout) == (0, f"{plain}: {numbers(count, new=count)}\n")
    stored = {row[:2]: row for row in conn.execute(QUERY)}
    expected = {bar[:2]: (*map(str, bar[2:7]), "None", str(bar.trades)) for bar in BARS}
    assert {key: tuple(map(str, row[2:])) for key, row in stored.items()} == expected

    again = run("load", str(plain), str(zipped), **settings)
    same = numbers(count, unchanged=count)
    assert (again.returncode, again.stdout) == (0, f"{plain}: {same}\n{zipped}: {same}\n")
    for data in (plain.read_bytes(), zipped.read_bytes()):
        piped = run_with_input(data, "load", "-", **settings)
        assert (piped.returncode, piped.stdout) == (0, f"-: {same}\n")
    assert {row[:2]: row for row in conn.execute(QUERY)} == stored
    assert fetch_value(conn, "select count(*) from tickstock.scan_queue") == 0


@pytest.mark.parametrize("way", ["cut", "damaged"])
def test_of_a_broken_gzip_what_came_before_the_break_is_loaded_and_told(
    url: str, conn: Connection[TupleRow], tmp_path: Path, way: str
) -> None:
    file = tmp_path / "day.csv.gz"
    data = gzip.compress(flat_file(BARS))
    middle = len(data) // 2
    rest = b"" if way == "cut" else b"\xff" * 20 + data[middle + 20 :]
    file.write_bytes(data[:middle] + rest)
    broken = run("load", str(file), TICKSTOCK_DATABASE_URL=url)
    stored = {row[:2] for row in conn.execute(QUERY)}
    assert len(BARS) / 4 < len(stored) < len(BARS)
    assert broken.returncode == 1
    last = broken.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {file}: the gzip data is incomplete or damaged (")
    assert last.endswith(f"download it again (stored before that: {len(stored):,} bars)")
    assert stored == {bar[:2] for bar in BARS[: len(stored)]}

    file.write_bytes(data)
    mended = run("load", str(file), TICKSTOCK_DATABASE_URL=url)
    count, there = len(BARS), len(stored)
    assert mended.stdout == f"{file}: {numbers(count, new=count - there, unchanged=there)}\n"


def test_lines_that_are_no_bars_are_refused_alone(
    url: str, conn: Connection[TupleRow], tmp_path: Path
) -> None:
    file = tmp_path / "day.csv"
    impossible = BARS[1]._replace(symbol="TURNED", high=1, low=2)
    data = flat_file([BARS[0], impossible]) + b"AAPL,1,much,1,1,1,1763994600000000000,1\n"
    file.write_bytes(data)
    done = run("load", str(file), TICKSTOCK_DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (0, f"{file}: {numbers(3, new=1, refused=2)}\n")
    assert "why: select reason, payload from refused_bars" in done.stderr
    refused = conn.execute("select source, reason from refused_bars order by reason").fetchall()
    assert refused == [
        ("day.csv", "high 1 is below low 2"),
        ("day.csv", "line 4: open 'much' is not a number"),
    ]


def test_what_is_no_flat_file_is_told_in_one_line(url: str, tmp_path: Path) -> None:
    trades = tmp_path / "trades.csv"
    trades.write_text("ticker,conditions,price\nAAPL,12,1.5\n")
    empty = tmp_path / "empty.csv.gz"
    empty.write_bytes(gzip.compress(b""))
    for name, said in (
        (tmp_path / "missing.csv", "no such file"),
        (tmp_path, "cannot be read (Is a directory)"),
        (trades, "not the vendor's minute flat file (no single column volume, "),
        (empty, "not the vendor's minute flat file (no single column ticker, "),
    ):
        done = run("load", str(name), TICKSTOCK_DATABASE_URL=url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith(f"Error: {name}: {said}")
        assert done.stderr.count("Error") == 1
