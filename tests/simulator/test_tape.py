"""The tape: trades and seconds that make the market's bars, and come over the wire as such."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.feed.oracle import by_key, ts_of
from tests.feed.oracle import oracle as bars_of_trades
from tickstock.bars import Bar
from tickstock.feed.frames import parse_frame
from tickstock.feed.minutes import SecondMinutes, TradeMinutes, regular_hours
from tickstock.simulator import Minute, RandomMarket, ReplayMarket, Simulator, ticker_symbols
from tickstock.simulator.events import Encoder
from tickstock.simulator.tape import Tape, prints_of
from tickstock.ticks import Second, Trade

from .client import DEADLINE, FAST, KEY, MORNING, Client, Event, ListMarket, market, wait_for_end

DATA = Path(__file__).parents[2].parent / "shared" / "data"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def played(minutes: Iterable[Minute], seed: int = 0) -> tuple[list[Bar], list[Trade], list[Second]]:
    """Bars, and the parsed trades and seconds of their tapes."""
    encoder = Encoder()
    bars: list[Bar] = []
    trades: list[Trade] = []
    seconds: list[Second] = []
    for minute in minutes:
        events = encoder.encode(minute)
        tape = Tape(minute.bars, events, seed=seed, regular=regular_hours(minute.ts))
        ticks = tape.ticks(0, 60_000, {"T": None, "A": None})
        frame = parse_frame(orjson.dumps([tick.fields for tick in ticks]), minute.ts)
        assert not frame.refusals
        assert not frame.ignored
        bars += minute.bars
        trades += frame.trades
        seconds += frame.seconds
    return bars, trades, seconds


@pytest.fixture(scope="module")
def morning() -> tuple[list[Bar], list[Trade], list[Second]]:
    """From ten minutes before the opening to ten minutes after it."""
    start = datetime(2026, 3, 4, 14, 20, tzinfo=UTC)
    names = ["AAPL", "SPY", "F", *ticker_symbols(80)[60:]]
    source = RandomMarket(names, seed=5, start=start, end=start + timedelta(minutes=20))
    return played(source.minutes())


def test_the_trades_make_the_markets_bars(
    morning: tuple[list[Bar], list[Trade], list[Second]],
) -> None:
    bars, trades, _ = morning
    assert len(bars) > 200
    # pandas and the vendor's list of conditions, not tickstock.feed.minutes.
    assert bars_of_trades(trades) == by_key(bars)
    minutes = TradeMinutes()
    minutes.add(trades)
    assert by_key(minutes.finish().bars) == by_key(bars)


def test_the_seconds_make_them_too_and_agree_with_the_trades(
    morning: tuple[list[Bar], list[Trade], list[Second]],
) -> None:
    bars, _, seconds = morning
    minutes = SecondMinutes()
    minutes.add(seconds)
    found = by_key(minutes.finish().bars)
    assert {key: bar[:7] for key, bar in found.items()} == {
        key: bar[:7] for key, bar in by_key(bars).items()
    }
    for key, bar in by_key(bars).items():
        assert found[key].vwap == pytest.approx(bar.vwap, abs=1.01e-4)


def test_a_second_is_made_of_its_trades(
    morning: tuple[list[Bar], list[Trade], list[Second]],
) -> None:
    _, trades, seconds = morning
    # The oracle knows minutes: let each second be one, on one day of regular trading after the other.
    opening = [trade for trade in trades if ts_of(trade.at) == MORNING]
    first = int(MORNING.timestamp())

    def stretched(at: int) -> int:
        return (first + 60 * (at // 1_000 - first)) * 1_000 + at % 1_000

    wanted = bars_of_trades(trade._replace(at=stretched(trade.at)) for trade in opening)
    found = {
        (second.symbol, ts_of(stretched(second.at))): second[2:]
        for second in seconds
        if ts_of(second.at) == MORNING
    }
    assert len(found) > 60
    assert found == {key: bar[2:8] for key, bar in wanted.items()}


def test_among_the_trades_are_some_of_every_kind(
    morning: tuple[list[Bar], list[Trade], list[Second]],
) -> None:
    _, trades, _ = morning
    codes = {code for trade in trades for code in trade.conditions}
    assert {2, 10, 12, 16, 22, 32, 37, 52, 53} <= codes
    extended = [t for t in trades if not regular_hours(datetime.fromtimestamp(t.at / 1000, UTC))]
    assert extended
    assert all(12 in t.conditions for t in extended)
    assert any(t.venue.trf for t in trades)
    keys = {(t.symbol, t.sequence) for t in trades}
    assert len(keys) == len(trades)
    for symbol in {trade.symbol for trade in trades}:
        own = [(t.at, t.sequence) for t in trades if t.symbol == symbol]
        assert own == sorted(own)


UNITS = st.integers(1, 50_000)


@st.composite
def any_bar(draw: st.DrawFn) -> Bar:
    """Bars as flat files have them: of any range, number of trades and fraction of a share."""
    opened, close = draw(UNITS), draw(UNITS)
    high = max(opened, close) + draw(st.just(0) | st.integers(0, 500))
    low = max(1, min(opened, close) - draw(st.just(0) | st.integers(0, 500)))
    digits = draw(st.sampled_from([1, 2, 4]))
    volume = draw(st.integers(1, 5) | st.integers(1, 10**6))
    fraction = draw(st.sampled_from([1, 1, 8, 1_000]))
    prices = [price / 10**digits for price in (opened, high, low, close)]
    return Bar(
        draw(st.sampled_from(["SPY", "BRK.B"])), MORNING,
        prices[0], prices[1], prices[2], prices[3], volume if fraction == 1 else volume / fraction,
        None, draw(st.none() | st.integers(1, 60)),
    )  # fmt: skip


@unhurried
@given(any_bar(), st.integers(0, 9), st.booleans())
@example(Bar("SPY", MORNING, 1.0, 2.0, 0.5, 1.5, 0.001), 0, True)
@example(Bar("SPY", MORNING, 1, 1, 1, 1, 1, None, 5), 0, True)
def test_any_bar_has_a_tape(bar: Bar, seed: int, regular: bool) -> None:
    ts = bar.ts if regular else bar.ts - timedelta(hours=2)
    bars, trades, seconds = played([Minute(ts, [bar._replace(ts=ts)])], seed)
    (found,) = bars_of_trades(trades).values()
    assert found[:6] == bars[0][:6]
    assert found.volume == Decimal(str(bar.volume))
    assert sum(Decimal(str(second.volume)) for second in seconds) == Decimal(str(bar.volume))
    assert (seconds[0].open, seconds[-1].close) == (bar.open, bar.close)
    if bar.trades and bar.volume == int(bar.volume) and 4 <= bar.trades <= bar.volume:
        assert found.trades == bar.trades


def test_a_bar_without_volume_has_no_tape() -> None:
    assert prints_of(Bar("SPY", MORNING, 1.0, 1.0, 1.0, 1.0, 0), regular=True)[1] == []


def test_a_tape_is_always_the_same_whoever_asks() -> None:
    (minute,) = RandomMarket(["AAPL", "SPY"], seed=1, start=MORNING,
                             end=MORNING + timedelta(minutes=1)).minutes()  # fmt: skip
    events = Encoder().encode(minute)

    def ticks(seed: int, wanted: dict[str, set[str] | None]) -> list[dict[str, Any]]:
        tape = Tape(minute.bars, events, seed=seed, regular=True)
        return [event.fields for event in tape.ticks(0, 60_000, wanted)]

    everything = ticks(1, {"T": None, "A": None})
    spy = [t for t in everything if (t["ev"], t["sym"]) == ("T", "SPY")]
    assert spy == ticks(1, {"T": {"SPY", "NOSUCH"}})
    assert spy != ticks(2, {"T": {"SPY"}})
    tape = Tape(minute.bars, events, seed=1, regular=True)
    parts = [tape.ticks(at, at + 7_500, {"T": {"SPY"}}) for at in range(0, 60_000, 7_500)]
    assert spy == [event.fields for part in parts for event in part]


@pytest.mark.skipif(
    not DATA.exists(), reason="no minute_aggs_*.csv.gz in ../shared/data beside the repository"
)
def test_a_real_day_gets_a_tape() -> None:
    source = ReplayMarket([str(DATA / "minute_aggs_2013-10-07.csv.gz")])
    bars, trades, seconds = played(source.minutes())
    for minutes in (TradeMinutes(), SecondMinutes()):
        minutes.add(trades if isinstance(minutes, TradeMinutes) else seconds)  # type: ignore[arg-type]
        found = by_key(minutes.finish().bars)
        assert {key: bar[:7] for key, bar in found.items()} == {
            key: bar[:7] for key, bar in by_key(bars).items()
        }
    assert len(bars) == 433 + 453 + 828


def receive(client: Client, simulator: Simulator) -> list[Event]:
    """Everything up to the end of the market."""
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE
    while len(events) < simulator.events_sent or not simulator.finished.is_set():
        assert time.monotonic() < deadline
        if len(events) < simulator.events_sent:
            events += client.frame()
        else:
            simulator.finished.wait(0.01)
    return events


@pytest.mark.parametrize("speed", [FAST, 400.0])
def test_all_channels_over_the_wire(speed: float) -> None:
    source = market(["AAPL", "SPY", "ZZZZ"], 8)
    with Simulator(source, speed=speed) as simulator, Client(simulator.url) as client:
        client.login().subscribe("AM.*,T.*,A.*")
        events = receive(client, simulator)
        truth = simulator.truth()
    assert {bar for minute in source.minutes() for bar in minute.bars} == set(truth.values())
    frame = parse_frame(orjson.dumps(events), MORNING)
    assert not frame.refusals
    assert by_key(frame.bars) == {key: bar._replace(trades=None) for key, bar in truth.items()}
    assert bars_of_trades(frame.trades) == truth
    assert simulator.sent == by_key(frame.bars)
    times = [moment(event) for event in events]
    assert times == sorted(times)
    for event in events:
        if event["ev"] == "A":
            assert set(event) == {"ev", "sym", "v", "av", "op", "vw", "o", "c", "h", "l", "a", "z",
                                  "s", "e"}  # fmt: skip
            assert event["e"] - event["s"] == 1_000
    for symbol in ("AAPL", "SPY"):
        own = [event for event in events if event["sym"] == symbol]
        volume, day = 0, 0
        for event in own:
            if event["ev"] == "A":
                volume += event["v"]
                assert event["av"] == volume
            elif event["ev"] == "AM":
                day += event["v"]
                assert event["av"] == day == volume


def moment(event: Event) -> int:
    """When it is known, in ms."""
    return int(event["t"] if event["ev"] == "T" else event["e"] - 1)


def test_a_client_gets_the_channels_and_symbols_it_wants() -> None:
    source = market(["AAPL", "SPY", "IBM"], 4)
    simulator = Simulator(source, speed=FAST, wait_for_subscriber=True)
    simulator.pause()
    with simulator, Client(simulator.url) as one, Client(simulator.url) as two:
        one.login().subscribe("T.AAPL,AM.SPY")
        two.login().subscribe("A.*")
        simulator.resume()
        wait_for_end(simulator)
        assert simulator.settle(DEADLINE)
        ones, twos = take_all(one), take_all(two)
    assert {(event["ev"], event["sym"]) for event in ones} == {("T", "AAPL"), ("AM", "SPY")}
    assert {(e["ev"], e["sym"]) for e in twos} == {("A", "AAPL"), ("A", "SPY"), ("A", "IBM")}
    assert simulator.events_sent == len(ones) + len(twos)
    frame = pd.DataFrame(twos)
    truth = {key: bar.volume for key, bar in simulator.truth().items()}
    assert frame["v"].sum() == sum(truth.values())


def take_all(client: Client) -> list[Event]:
    """What is there to be read, after the market has ended."""
    events: list[Event] = []
    client.send("dance", "")
    while not any(event["ev"] == "status" for event in events):
        events += client.frame()
    return events[:-1]


def test_trades_come_while_the_minute_passes() -> None:
    # A minute of five seconds of real time: its first trades come within the first of them.
    with Simulator(market(["AAPL"], 3), speed=12) as simulator, Client(simulator.url) as client:
        client.login().subscribe("T.AAPL,AM.AAPL")
        assert client.frame()[0]["ev"] == "T"
        assert simulator.clock is None


def test_a_plan_may_have_fewer_channels() -> None:
    source = market(1, 1)
    simulator = Simulator(source, channels=["AM"], keys=[KEY])
    with simulator, Client(simulator.url) as client:
        client.login().send("subscribe", "T.AAPL,A.AAPL,AM.AAPL")
        assert [event["status"] for event in client.frame()] == ["error", "error", "success"]


def test_the_last_version_of_a_bar_is_the_truth_of_rest_too() -> None:
    bar = Bar("AAPL", MORNING, 10.0, 10.5, 9.5, 10.25, 100, 10.1, 7)
    better = bar._replace(close=10.5)
    source = ListMarket([Minute(MORNING, [bar]), Minute(MORNING + timedelta(minutes=1), [better])])
    with Simulator(source, speed=FAST, wait_for_subscriber=False) as simulator:
        wait_for_end(simulator)
        assert simulator.truth() == {("AAPL", MORNING): better}
