"""Real trading days of October 2013, against the vendor's own hourly and daily bars."""

import csv
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from psycopg import Connection
from psycopg.rows import TupleRow

from tests.contract.oracle import differences, read_snapshot
from tickstock.ingest.load import load_file

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = sorted(map(str, DATA.glob("minute_aggs_2013-10-*.csv.gz")))
NEW_YORK = ZoneInfo("America/New_York")

pytestmark = pytest.mark.skipif(not FILES, reason="the real trading days are not in ../shared/data")


@pytest.fixture
def loaded(conn: Connection[TupleRow]) -> Connection[TupleRow]:
    for file in FILES:
        load_file(conn, file)
    return conn


def vendor(symbol: str, timeframe: str) -> dict[datetime, tuple[Decimal, ...]]:
    with (DATA / "vendor_reference.csv").open() as file:
        return {
            datetime.fromisoformat(row["bucket_start_new_york"]).replace(tzinfo=NEW_YORK): tuple(
                Decimal(row[column]) for column in ("open", "high", "low", "close", "volume")
            )
            for row in csv.DictReader(file)
            if (row["ticker"], row["timeframe"]) == (symbol, timeframe)
        }


@pytest.mark.parametrize("refreshed", [False, True], ids=["live", "refreshed"])
def test_spy_equals_the_vendor_on_five_days_of_six(
    loaded: Connection[TupleRow], refreshed: bool
) -> None:
    if refreshed:
        loaded.execute("call ohlcv_refresh()")
    rows = loaded.execute(
        "select ts, open, high, low, close, volume from ohlcv_daily where symbol = 'SPY' order by ts"
    )
    ours = {ts.astimezone(NEW_YORK): numbers for ts, *numbers in rows}
    theirs = vendor("SPY", "1day")
    assert list(ours) == list(theirs)
    other = {f"{ts:%m-%d}": (a, b) for ts, b in theirs.items() if (a := tuple(ours[ts])) != b}
    assert list(other) == ["10-08"]
    ours_that_day, theirs_that_day = other["10-08"]
    assert [a - b for a, b in zip(ours_that_day, theirs_that_day, strict=True) if a != b] in (
        [Decimal("0.01")],
        [Decimal("-0.01")],
    )


def test_loading_again_changes_nothing(loaded: Connection[TupleRow]) -> None:
    loaded.execute("call ohlcv_refresh()")
    marks = loaded.execute("select count(*) from tickstock.dirty").fetchone()
    again = [load_file(loaded, file) for file in FILES]
    assert all(c.inserted == c.replaced == c.refused == 0 for c in again)
    rows = loaded.execute("select count(*) from ohlcv_1min").fetchone()
    assert rows == (sum(c.unchanged for c in again),)
    assert loaded.execute("select count(*) from tickstock.dirty").fetchone() == marks
    assert loaded.execute("select count(*) from tickstock.scan_queue").fetchone() == (0,)


def test_a_bar_deleted_or_corrected_by_plain_sql_shows_in_every_timeframe(
    loaded: Connection[TupleRow],
) -> None:
    loaded.execute("call ohlcv_refresh()")
    for statement in (
        "delete from ohlcv_1min where symbol = 'SPY' and ts = '2013-10-07 10:30 America/New_York'",
        "update ohlcv_1min set high = 999 where symbol = 'SPY' and ts = '2013-10-07 10:31 America/New_York'",
    ):
        before = read_snapshot(loaded)
        loaded.execute(statement)
        after = read_snapshot(loaded)
        assert differences(after) == []
        changed = [tf for tf in after.candles if after.candles[tf] != before.candles[tf]]
        assert changed == list(after.candles)
