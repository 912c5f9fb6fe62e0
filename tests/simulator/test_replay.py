"""Replaying flat files: order, gaps, what the events carry, and real trading days."""

import gzip
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tickstock.bars import Bar
from tickstock.errors import TickstockError
from tickstock.feed.flatfiles import HEADER, read_bars
from tickstock.simulator import ReplayMarket, Simulator

from .client import FAST, by_key, subscribed, wait_for_end

MINUTE = timedelta(minutes=1)
MONDAY = datetime(2013, 10, 7, 13, 30, tzinfo=UTC)

DATA = Path(__file__).parents[2].parent / "shared" / "data"
DAYS = sorted(map(str, DATA.glob("minute_aggs_*.csv.gz")))

needs_real_days = pytest.mark.skipif(
    not DAYS, reason="no minute_aggs_*.csv.gz in ../shared/data beside the repository"
)


def write_file(path: Path, *bars: tuple[str, datetime, str]) -> str:
    """A flat file of bars that have one price each."""
    rows = [
        f"{symbol},100,{price},{price},{price},{price},{int(ts.timestamp())}000000000,3"
        for symbol, ts, price in bars
    ]
    path.write_text("\n".join([",".join(HEADER), *rows]) + "\n")
    return str(path)


def test_files_are_played_in_the_order_of_their_first_bars(tmp_path: Path) -> None:
    tuesday = write_file(tmp_path / "a.csv", ("SPY", MONDAY + 1440 * MINUTE, "2"))
    monday = write_file(
        tmp_path / "b.csv",
        ("SPY", MONDAY + 3 * MINUTE, "1.5"),
        ("SPY", MONDAY, "1"),
        ("IBM", MONDAY, "7.25"),
    )
    market = ReplayMarket([tuesday, monday])
    assert list(market.symbols) == ["IBM", "SPY"]
    minutes = list(market.minutes())
    assert [(minute.ts - MONDAY) // MINUTE for minute in minutes] == [0, 1, 2, 3, 1440]
    assert [len(minute.bars) for minute in minutes] == [2, 0, 0, 1, 1]
    assert minutes[0].bars == [
        Bar("SPY", MONDAY, 1, 1, 1, 1, 100, None, 3),
        Bar("IBM", MONDAY, 7.25, 7.25, 7.25, 7.25, 100, None, 3),
    ]
    assert list(market.minutes()) == minutes, "minutes() did not begin anew"


def test_overlapping_files_are_played_together(tmp_path: Path) -> None:
    spy = [("SPY", MONDAY + n * MINUTE, "1") for n in range(0, 6, 2)]
    ibm = [("IBM", MONDAY + n * MINUTE, "2") for n in range(1, 7)]
    files = [write_file(tmp_path / "i.csv", *ibm), write_file(tmp_path / "s.csv", *spy)]
    files += [write_file(tmp_path / "a.csv", ("AMD", MONDAY + 6 * MINUTE, "3"))]
    minutes = list(ReplayMarket(files).minutes())
    assert [(minute.ts - MONDAY) // MINUTE for minute in minutes] == list(range(7))
    assert [sorted(bar.symbol for bar in minute.bars) for minute in minutes] == [
        ["SPY"],
        ["IBM"],
        ["IBM", "SPY"],
        ["IBM"],
        ["IBM", "SPY"],
        ["IBM"],
        ["AMD", "IBM"],
    ]


def test_lines_that_are_no_bars_are_logged_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_file(tmp_path / "day.csv", ("SPY", MONDAY, "1"), ("SPY", MONDAY, "NaN"))
    (minute,) = ReplayMarket([path]).minutes()
    assert len(minute.bars) == 1
    assert f"{path}: 1 lines are no bars" in caplog.text


@pytest.mark.parametrize("bars", [0, 1])
def test_a_file_without_bars_adds_nothing(tmp_path: Path, bars: int) -> None:
    empty = write_file(tmp_path / "empty.csv")
    paths = [empty, write_file(tmp_path / "full.csv", ("SPY", MONDAY, "1"))][: bars + 1]
    if bars:
        assert len(list(ReplayMarket(paths).minutes())) == 1
    else:
        with pytest.raises(TickstockError, match=r"empty\.csv: nothing to replay"):
            ReplayMarket(paths)


def test_what_cannot_be_replayed_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TickstockError, match="no file: nothing to replay"):
        ReplayMarket([])
    with pytest.raises(TickstockError, match="standard input"):
        ReplayMarket(["-"])
    with pytest.raises(TickstockError, match=r"missing\.csv: no such file"):
        ReplayMarket([str(tmp_path / "missing.csv")])


def test_a_replay_over_the_wire_carries_the_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "day.csv", ("SPY", MONDAY, "167.42"), ("SPY", MONDAY, "168"))
    with Simulator(ReplayMarket([path]), speed=FAST) as simulator, subscribed(simulator) as client:
        first, second = client.take(2)
        wait_for_end(simulator)
        assert (first["o"], first["z"], first["op"]) == (167.42, 33, 167.42)
        assert (second["c"], second["av"]) == (168, 200)
        assert "vw" not in first
        assert "a" not in first
        assert simulator.sent == by_key([second])


@needs_real_days
def test_real_days_are_played_completely_and_in_order() -> None:
    market = ReplayMarket(DAYS[::-1])
    assert list(market.symbols) == ["AIG", "IBM", "SPY"]
    minutes = list(market.minutes())
    in_files = sorted(
        (bar.symbol, bar.ts, bar.close, bar.volume)
        for path in DAYS
        for bar in read_bars(path)
        if isinstance(bar, Bar)
    )
    played = sorted(
        (bar.symbol, bar.ts, bar.close, bar.volume) for minute in minutes for bar in minute.bars
    )
    assert [(s, ts, str(float(c)), v) for s, ts, c, v in in_files] == [
        (s, ts, str(float(c)), v) for s, ts, c, v in played
    ]
    assert all(bar.ts == minute.ts for minute in minutes for bar in minute.bars)
    new_york = ZoneInfo("America/New_York")
    for earlier, later in pairwise(minute.ts for minute in minutes):
        overnight = earlier.astimezone(new_york).date() < later.astimezone(new_york).date()
        assert later - earlier == MINUTE or (overnight and later > earlier)


@needs_real_days
def test_a_real_day_arrives_as_the_file_has_it(tmp_path: Path) -> None:
    source = DAYS[1]
    text = gzip.decompress(Path(source).read_bytes()).decode().splitlines()[1:]
    with Simulator(ReplayMarket([source]), speed=FAST) as simulator, subscribed(simulator) as some:
        received = by_key(some.take(len(text)))
        wait_for_end(simulator)
    assert received == simulator.sent
    assert len(received) == len(text)
    for line in text:
        ticker, volume, open_, close, high, low, start, _ = line.split(",")
        ts = datetime.fromtimestamp(int(start) / 1e9, UTC)
        bar = received[ticker, ts]
        assert [bar.open, bar.close, bar.high, bar.low] == [*map(float, (open_, close, high, low))]
        assert bar.volume == float(volume)
