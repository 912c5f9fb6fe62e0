"""The market clock, the truth in `sent`, several clients, slow ones, beginning and end."""

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest

from tickstock.bars import Bar
from tickstock.errors import TickstockError
from tickstock.simulator import Minute, RandomMarket, Simulator

from .client import (
    DEADLINE,
    FAST,
    MORNING,
    Client,
    Event,
    ListMarket,
    SteadyMarket,
    as_bar,
    bars_of,
    by_key,
    market,
    subscribed,
    wait_for_end,
)

ENDLESS = 1_000_000
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator"]


def test_the_clock_stands_still_until_the_first_subscription() -> None:
    source = market(["AAPL"], 20)
    with Simulator(source, speed=FAST) as simulator:
        with Client(simulator.url) as client:
            client.login().subscribe("AM.NOSUCH")
            wait_for_end(simulator)
        assert simulator.clock == MORNING + 19 * MINUTE
        assert simulator.sent == {}
    with Simulator(source, speed=FAST) as simulator, Client(simulator.url) as client:
        client.login().send("subscribe", "Q.AAPL,XX.AAPL")
        client.status()
        assert client.is_silent(0.2)
        assert simulator.clock is None
        client.subscribe("AM.*")
        assert client.take(1)[0]["s"] == MORNING.timestamp() * 1000


def test_without_waiting_the_market_passes_unseen() -> None:
    source = market(5, 20)
    with Simulator(source, speed=FAST, wait_for_subscriber=False) as simulator:
        wait_for_end(simulator)
        assert simulator.clock == MORNING + 19 * MINUTE
        assert simulator.sent == {}
        assert simulator.events_sent == 0


def test_at_infinite_speed_the_market_waits_for_somebody_to_take_it() -> None:
    source = market(["AAPL", "MSFT"], ENDLESS)
    with Simulator(source, speed=0) as simulator:
        with subscribed(simulator, "AM.AAPL") as client:
            client.take(10)
            client.send("unsubscribe", "AM.AAPL")
            client.take_acknowledgement("unsubscribed to: AM.AAPL")
            stopped_at = simulator.clock
            assert client.is_silent(0.2)
            assert simulator.clock == stopped_at
        assert stopped_at
        with subscribed(simulator, "AM.*") as client:
            first = as_bar(client.take(1)[0])
        assert first.ts == stopped_at + MINUTE


def test_a_minute_takes_its_time_and_its_bars_come_at_its_end() -> None:
    minutes, speed = 20, 1_200.0
    with Simulator(market(2, minutes), speed=speed) as simulator, Client(simulator.url) as client:
        client.login()
        begin = time.monotonic()
        client.subscribe("AM.*")
        client.take(1)
        assert time.monotonic() - begin >= 60 / speed
        wait_for_end(simulator)
        # No upper bound that a busy machine could break; infinite speed would be far below.
        assert time.monotonic() - begin >= minutes * 60 / speed


def test_closed_hours_take_no_time() -> None:
    # 19:58 on a Friday in New York, and 04:03 on the Monday after; summer time began in between.
    friday = datetime(2026, 3, 7, 0, 58, tzinfo=UTC)
    monday = datetime(2026, 3, 9, 8, 3, tzinfo=UTC)
    source = RandomMarket(["SPY"], start=friday, end=monday)
    clocks = [minute.ts for minute in source.minutes()]
    assert len(clocks) == 5
    with Simulator(source, speed=600, wait_for_subscriber=False) as simulator:
        wait_for_end(simulator)
        assert simulator.clock == clocks[-1]


def test_pause_and_resume() -> None:
    with (
        Simulator(market(5, ENDLESS), speed=60_000) as simulator,
        subscribed(simulator) as client,
    ):
        taken = client.take(20)
        simulator.pause()
        assert simulator.settle(DEADLINE)
        paused_at, truth = simulator.clock, dict(simulator.sent)
        assert paused_at
        taken += client.take(len(truth) - len(taken))
        assert client.is_silent(0.2)
        assert (simulator.clock, simulator.sent) == (paused_at, truth)
        assert by_key(taken) == truth
        simulator.resume()
        assert as_bar(client.take(1)[0]).ts == paused_at + MINUTE


def test_who_comes_later_gets_bars_from_then_on() -> None:
    source = market(["AAPL", "MSFT", "SPY"], ENDLESS)
    with Simulator(source, speed=60_000) as simulator:
        with subscribed(simulator, "AM.AAPL") as early:
            early.take(20)
            reached = simulator.clock
            assert reached
            with subscribed(simulator, "AM.MSFT") as late:
                assert as_bar(late.take(1)[0]).ts >= reached
        simulator.pause()
        assert {symbol for symbol, _ in simulator.sent} == {"AAPL", "MSFT"}
        end = simulator.clock
        assert end
        played = takewhile(lambda minute: minute.ts <= end, source.minutes())
        known = {(bar.symbol, bar.ts): bar for minute in played for bar in minute.bars}
        for key, bar in simulator.sent.items():
            assert bar == known[key]._replace(trades=None)


def test_clients_with_different_wishes_get_the_same_bars() -> None:
    source = market(30, 40)
    simulator = Simulator(source, speed=FAST, frame_events=7)
    simulator.pause()
    with simulator, subscribed(simulator) as everything, subscribed(simulator, "AM.SPY") as one:
        simulator.resume()
        truth = {(bar.symbol, bar.ts): bar._replace(trades=None) for bar in bars_of(source)}
        spy = {key: bar for key, bar in truth.items() if key[0] == "SPY"}
        assert by_key(one.take(len(spy))) == spy
        assert by_key(everything.take(len(truth))) == truth
        wait_for_end(simulator)
        assert simulator.sent == truth
        assert simulator.events_sent == len(truth) + len(spy)


def test_the_last_version_of_a_bar_is_the_truth() -> None:
    bar = Bar("AAPL", MORNING, 10.0, 10.5, 9.5, 10.25, 100, 10.1, 7)
    corrected = bar._replace(close=10.5, volume=120)
    source = ListMarket([Minute(MORNING, [bar]), Minute(MORNING + MINUTE, [corrected])])
    with Simulator(source, speed=FAST) as simulator, subscribed(simulator) as client:
        assert [as_bar(event).close for event in client.take(2)] == [10.25, 10.5]
        wait_for_end(simulator)
        assert simulator.sent == {("AAPL", MORNING): corrected._replace(trades=None)}


def test_nothing_is_remembered_if_not_wanted() -> None:
    source = market(3, 10)
    with Simulator(source, speed=FAST, remember=False) as simulator, subscribed(simulator) as some:
        some.take(len(bars_of(source)))
        wait_for_end(simulator)
        assert simulator.sent == {}
        assert simulator.events_sent == len(bars_of(source))


SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)]


def test_a_slow_consumer_is_cut_and_nobody_else_notices() -> None:
    # 40,000 events/s of 170 bytes: the kernel's buffers and the queue are full within seconds.
    with (
        Simulator(SteadyMarket(2_000), speed=1_200, queue_events=5_000) as simulator,
        subscribed(simulator, "AM.AAPL,AM.TSLA") as modest,
        subscribed(simulator, sockopt=SMALL_BUFFER) as slow,
    ):
        received: list[Event] = []
        while simulator.subscribers == 2:
            received += modest.take(2)
        events, code = slow.ending()
        assert code == 1008
        assert events[-1]["status"] == "slow_consumer"
        assert by_key(events[:-1]).items() <= simulator.sent.copy().items()
        received += modest.take(200)
        assert [event["sym"] for event in received] == ["AAPL", "TSLA"] * (len(received) // 2)
        begin = received[0]["s"]
        stamps = [event["s"] for event in received[::2]]
        assert stamps == [begin + number * 60_000 for number in range(len(stamps))]


def test_at_infinite_speed_one_that_stalls_is_cut() -> None:
    source = market(2_000, 35)
    simulator = Simulator(source, speed=FAST, stall_timeout=0.3)
    simulator.pause()
    with (
        simulator,
        subscribed(simulator) as fast,
        subscribed(simulator, sockopt=SMALL_BUFFER) as stalled,
    ):
        simulator.resume()
        expected = len(bars_of(source))
        assert len(by_key(fast.take(expected))) == expected
        wait_for_end(simulator)
        assert simulator.subscribers == 1
        assert stalled.ending()[1] == 1008


def pause_when_stuck(simulator: Simulator) -> None:
    """Go on until the client, which does not read, has no room left; then pause."""
    deadline = time.monotonic() + DEADLINE
    simulator.pause()
    while simulator.settle(0.3):
        assert time.monotonic() < deadline
        simulator.resume()
        simulator.settle(0.3)
        simulator.pause()


def test_settle_says_when_a_client_does_not_take_its_bars() -> None:
    simulator = Simulator(SteadyMarket(5_000), speed=FAST)
    with simulator, subscribed(simulator, sockopt=SMALL_BUFFER) as client:
        pause_when_stuck(simulator)
        received: list[Event] = []
        while not simulator.settle(0.01):
            received += client.take(simulator.events_sent - len(received))
        received += client.take(simulator.events_sent - len(received))
        assert by_key(received) == simulator.sent


def test_a_market_that_fails_ends_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    failure = TickstockError("day.csv.gz: the gzip data is incomplete")
    with Simulator(ListMarket([failure]), wait_for_subscriber=False) as simulator:
        wait_for_end(simulator)
        assert simulator.error is failure
        assert "the simulated market failed" in caplog.text


def test_stop_closes_connections_and_frees_the_port() -> None:
    first = Simulator(market(1, ENDLESS))
    first.start()
    with Client(first.url) as client:
        client.login()
        first.stop()
        first.stop()
        assert client.ending() == ([], 1001)
    with Simulator(market(1, 1), port=first.port, speed=FAST) as second:
        assert second.port == first.port
        with subscribed(second) as client:
            client.take(1)


def test_stop_does_not_wait_for_a_client_that_hangs() -> None:
    simulator = Simulator(SteadyMarket(2_000), speed=FAST)
    with simulator, subscribed(simulator, sockopt=SMALL_BUFFER) as stalled:
        pause_when_stuck(simulator)
        begin = time.monotonic()
        simulator.stop()
        assert time.monotonic() - begin < DEADLINE / 2
        assert stalled.ending()[1] in (None, 1001)


def test_a_port_in_use_is_named() -> None:
    with Simulator(market(1, 1)) as first:
        second = Simulator(market(1, 1), port=first.port)
        with pytest.raises(TickstockError, match=rf"port {first.port} on 127.0.0.1 is in use; "):
            second.start()
        second.stop()
        with pytest.raises(TickstockError):
            _ = second.url


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70_000), ("a b", 0)])
def test_an_impossible_address_is_named(host: str, port: int) -> None:
    with pytest.raises(TickstockError, match=rf"port {port} on {host}: cannot listen there"):
        Simulator(market(1, 1), host=host, port=port).start()


def test_every_interface_is_reached_by_the_loopback_address() -> None:
    with Simulator(market(1, 1), host="0.0.0.0") as simulator:  # noqa: S104
        assert simulator.url == f"ws://127.0.0.1:{simulator.port}/stocks"
        with Client(simulator.url) as client:
            client.login()


@pytest.mark.parametrize("speed", [-1.0, float("nan")])
def test_an_impossible_speed_is_refused(speed: float) -> None:
    with pytest.raises(TickstockError, match="speed"):
        Simulator(market(1, 1), speed=speed)


def test_frames_without_events_are_refused() -> None:
    with pytest.raises(TickstockError, match="0 events a frame"):
        Simulator(market(1, 1), frame_events=0)


def test_there_is_no_address_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="before start"):
        _ = Simulator(market(1, 1)).url
