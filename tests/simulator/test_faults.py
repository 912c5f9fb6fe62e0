"""The simulator misbehaves as it is told to, the same way each time, and its truth can be reached."""

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websocket import ABNF

from tickstock.bars import Bar
from tickstock.errors import TickstockError
from tickstock.feed.backoff import Backoff
from tickstock.feed.client import FeedClient
from tickstock.feed.frames import parse_frame
from tickstock.simulator import FAULTS, Faults, Minute, RandomMarket, Simulator
from tickstock.simulator.events import Encoder, Event
from tickstock.simulator.faults import CONNECTION_FAULTS, GARBAGE, LATEST, STREAM_FAULTS, wrong

from .client import (
    DEADLINE,
    FAST,
    KEY,
    MORNING,
    Client,
    SteadyMarket,
    as_bar,
    market,
    subscribed,
    wait_for_end,
)

ENDLESS = 1_000_000
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "simulator"]


def minutes_of(symbols: int, minutes: int) -> list[list[Event]]:
    encoder = Encoder()
    return [encoder.encode(minute) for minute in market(symbols, minutes).minutes()]


def disturbed(faults: Faults, minutes: Sequence[Sequence[Event]]) -> list[list[Event]]:
    """What is sent in each minute, and what remains at the end."""
    return [*(faults.disturb(events, last=True) for events in minutes), faults.remains()]


def key_of(event: Event) -> tuple[str, int]:
    return event.fields["sym"], event.fields["s"]


RATES = st.fixed_dictionaries(
    {}, optional={name: st.floats(0, 0.2) for name in STREAM_FAULTS if name != "gap"}
)


@unhurried
@given(RATES, st.integers(0, 9))
def test_in_the_end_every_bar_has_come_and_its_last_version_is_the_truth(
    rates: dict[str, float], seed: int
) -> None:
    minutes = minutes_of(4, 25)
    faults = Faults(rates, seed=seed)
    sent = disturbed(faults, minutes)
    truth = {key_of(event): event for event in chain(*minutes)}
    assert {key_of(event): event for event in chain(*sent)} == truth
    more = faults.counts["duplicate"] + faults.counts["corrected"]
    assert sum(map(len, sent)) == len(truth) + more
    for number, events in enumerate(sent[:-1]):
        for event in events:
            delay = number - (event.fields["s"] // 1_000 - int(MORNING.timestamp())) // 60
            assert 0 <= delay <= LATEST
    assert set(faults.counts) <= set(rates)
    again = disturbed(Faults(rates, seed=seed), minutes)
    assert again == sent


def test_each_fault_of_the_stream_does_what_it_says() -> None:
    minutes = minutes_of(1, 40)
    (bar,) = minutes[2]

    def with_one(fault: str, seed: int = 0) -> list[list[Event]]:
        faults = Faults(seed=seed)
        sent = [faults.disturb(events, last=True) for events in minutes[:2]]
        faults.order(fault)
        sent += [faults.disturb(events, last=True) for events in minutes[2:]]
        assert faults.counts == {fault: 1}
        assert faults.remains() == []
        return sent

    assert sum(bar in events for events in with_one("gap")) == 0
    delays = {
        next(n for n, events in enumerate(with_one("late", seed)) if bar in events) - 2
        for seed in range(60)
    }
    assert delays == set(range(1, LATEST + 1))
    assert bar in with_one("out_of_order")[3]
    assert bar not in with_one("out_of_order")[2]
    copies = [
        [n - 2 for n, events in enumerate(with_one("duplicate", seed)) for e in events if e == bar]
        for seed in range(40)
    ]
    assert {tuple(found) for found in copies} == {(0, 0), (0, 1), (0, 2), (0, 3)}
    corrected = with_one("corrected")
    assert corrected[2] == [wrong(bar)]
    assert sum(bar in events for events in corrected[3:]) == 1


def test_out_of_order_is_anywhere_in_the_next_minute() -> None:
    minutes = minutes_of(20, 12)
    places = set()
    for seed in range(20):
        faults = Faults(seed=seed)
        faults.order("out_of_order")
        faults.disturb(minutes[0], last=True)
        sent = faults.disturb([*minutes[1]], last=True)
        (swapped,) = (event for event in sent if event not in minutes[1])
        assert swapped == minutes[0][0]
        places.add(sent.index(swapped))
    assert len(places) > 5
    assert places != {len(minutes[1])}


def test_rates_are_probabilities_each_of_its_own() -> None:
    minutes = minutes_of(50, 60)
    number = sum(map(len, minutes))
    assert number > 2_500
    faults = Faults(dict.fromkeys(STREAM_FAULTS, 0.15))
    disturbed(faults, minutes)
    for fault in STREAM_FAULTS:
        assert faults.counts[fault] == pytest.approx(0.15 * number, rel=0.25)


def test_minutes_are_counted_however_often_something_is_sent_in_one() -> None:
    (event,) = minutes_of(1, 1)[0]
    delays = set()
    for seed in range(80):
        faults = Faults(seed=seed)
        faults.order("late")
        assert faults.disturb([event], last=False) == []
        minute = 0
        while not faults.disturb([], last=False):
            faults.disturb([], last=True)
            minute += 1
            assert minute <= LATEST
        delays.add(minute)
    assert delays == set(range(1, LATEST + 1))


def test_a_wrong_bar_is_sound_and_not_the_truth() -> None:
    for event in chain(*minutes_of(10, 10)):
        other = wrong(event)
        (bar,) = parse_frame(orjson.dumps([other.fields]), MORNING).bars
        assert bar == other.bar != event.bar
        assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high


def test_trades_are_never_corrected() -> None:
    trade = Event({"ev": "T", "sym": "A", "p": 1.0})
    faults = Faults({"corrected": 1.0})
    assert faults.disturb([trade], last=True) == [trade]
    assert not faults.counts


def test_seeds_differ_and_calm_is_calm() -> None:
    minutes = minutes_of(5, 30)
    rates = dict.fromkeys(("late", "gap", "duplicate"), 0.1)
    assert disturbed(Faults(rates, seed=1), minutes) != disturbed(Faults(rates, seed=2), minutes)
    faults = Faults(rates)
    faults.disturb(minutes[0], last=True)
    assert faults.active
    faults.calm()
    assert not faults.active
    before = faults.counts.copy()
    sent = disturbed(faults, minutes[1:])
    assert faults.counts == before
    assert [event for event in chain(*sent) if event in list(chain(*minutes[1:]))] == list(
        chain(*minutes[1:])
    )


@pytest.mark.parametrize("rates", [{"dorp": 0.1}, {"drop": 1.1}, {"drop": -0.1}])
def test_what_cannot_be_is_refused(rates: dict[str, float]) -> None:
    with pytest.raises(TickstockError, match=r"dorp: no such fault; there are|the rate of a fault"):
        Faults(rates)


def test_unknown_faults_are_not_injected_either() -> None:
    with pytest.raises(TickstockError, match="no such fault"):
        Faults().order("dorp")
    simulator = Simulator(market(1, 1))
    with pytest.raises(TickstockError, match="no such fault"):
        simulator.inject("dorp")
    with pytest.raises(RuntimeError, match="not running"):
        simulator.inject("drop")
    assert all(FAULTS.values())


def test_the_document_tells_of_every_fault() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (.*) \|$", text, re.MULTILINE)
    assert {name: words.replace("`", "") for name, words in rows} == {
        name: words.replace("`", "") for name, words in FAULTS.items()
    }


def test_a_drop_ends_tcp_without_a_word() -> None:
    with Simulator(market(3, ENDLESS), speed=60_000) as simulator, subscribed(simulator) as client:
        client.take(5)
        simulator.inject("drop")
        events, code = client.ending()
        assert code is None
        assert all(event["ev"] == "AM" for event in events)
        assert simulator.faults.counts == {"drop": 1}
        with subscribed(simulator) as again:
            again.take(1)


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [("slow_consumer", 1008, "slow_consumer"), ("slow_consumer_1011", 1011, None),
     ("max_connections_old", 1008, "max_connections")],
)  # fmt: skip
def test_cuts_have_their_code_and_their_last_words(
    fault: str, code: int, status: str | None
) -> None:
    with Simulator(market(3, ENDLESS), speed=60_000) as simulator, subscribed(simulator) as client:
        client.take(5)
        simulator.inject(fault)
        events, found = client.ending()
        assert found == code
        assert [e["status"] for e in events if e["ev"] == "status"] == ([status] if status else [])
        assert simulator.subscribers == 0


def answers_ping(raw: websocket.WebSocket) -> bool:
    """Whether a pong comes within a moment, before anything else."""
    raw.settimeout(0.5)
    raw.ping("?")
    try:
        while (found := raw.recv_data(control_frame=True)) != (ABNF.OPCODE_PONG, b"?"):
            assert found[0] in (ABNF.OPCODE_TEXT, ABNF.OPCODE_PING)
    except websocket.WebSocketTimeoutException:
        return False
    return True


@pytest.mark.parametrize(("fault", "pong"), [("silence", True), ("half_open", False)])
def test_silence_with_and_without_a_pulse(fault: str, pong: bool) -> None:
    with Simulator(market(3, ENDLESS), speed=60_000) as simulator, subscribed(simulator) as client:
        client.take(5)
        raw = client._socket
        assert answers_ping(raw)
        simulator.inject(fault)
        assert answers_ping(raw) is pong
        raw.settimeout(0.3)
        client.send("unsubscribe", "AM.*")
        with pytest.raises(websocket.WebSocketTimeoutException):
            raw.recv_data()
        assert raw.sock is not None
        assert raw.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        begin = time.monotonic()
        simulator.stop()
        assert time.monotonic() - begin < DEADLINE / 2


@pytest.mark.parametrize("fault", sorted({*CONNECTION_FAULTS, "garbage"}))
def test_at_a_rate_faults_come_within_the_minutes(fault: str) -> None:
    faults = Faults({fault: 0.2})
    simulator = Simulator(market(20, 200), speed=FAST, frame_events=5, faults=faults)
    with simulator, subscribed(simulator):
        if fault == "garbage":
            wait_for_end(simulator)
            assert faults.counts["garbage"] > 20
        else:
            wait_until_alone(simulator)
            assert faults.counts == {fault: 1}


def wait_until_alone(simulator: Simulator) -> None:
    """Until nobody is subscribed any more."""
    deadline = time.monotonic() + DEADLINE
    while simulator.subscribers:
        assert time.monotonic() < deadline
        simulator.settle(0.05)


def test_garbage_stands_among_sound_frames() -> None:
    with Simulator(market(3, 5), speed=FAST) as simulator:
        simulator.pause()
        with subscribed(simulator) as client:
            simulator.inject("garbage")
            simulator.resume()
            wait_for_end(simulator)
            frames = [client._receive()[1] for _ in range(6)]
    assert sum(frame in GARBAGE for frame in frames) == 1
    sound = [event for frame in frames if frame not in GARBAGE for event in orjson.loads(frame)]
    assert {(bar.symbol, bar.ts): bar for bar in map(as_bar, sound)} == simulator.sent


def test_garbage_is_refused_or_means_nothing() -> None:
    now = datetime(2026, 3, 4, tzinfo=UTC)
    for message in GARBAGE:
        frame = parse_frame(message, now)
        assert not frame.trades
        assert not frame.seconds
        # What is left has a form, but can't be true: below its low, or in the next century.
        assert all(bar.symbol == "GARBAGE" for bar in frame.bars)
        assert all(bar.high < bar.low or bar.ts.year == 2100 for bar in frame.bars)


def test_one_connection_too_many_costs_the_newcomer_after_its_acknowledgement() -> None:
    with Simulator(market(3, ENDLESS), speed=60_000, max_connections=1) as simulator:
        with subscribed(simulator) as first:
            with subscribed(simulator) as second:
                events, code = second.ending()
            assert (events[-1]["status"], code) == ("max_connections", 1008)
            assert events[-1]["message"].startswith(
                "Maximum number of websocket connections exceeded"
            )
            first.take(50)
        with subscribed(simulator) as third:
            third.take(10)


def test_who_was_cut_does_not_count_any_more() -> None:
    with Simulator(market(3, ENDLESS), speed=60_000, max_connections=1) as simulator:
        with subscribed(simulator) as deaf:
            deaf.take(1)
            simulator.inject("slow_consumer")  # its closing is not answered for a while
            with subscribed(simulator) as other:
                other.take(50)
        with subscribed(simulator):
            simulator.inject("silence")  # the vendor does not know it; the connection counts
            with subscribed(simulator) as newcomer:
                assert newcomer.ending()[1] == 1008


def test_one_connection_too_many_may_cost_the_older_one() -> None:
    simulator = Simulator(
        market(3, ENDLESS), speed=60_000, max_connections=1, crowded_out="old", keys=["a", "b"]
    )
    with simulator, Client(simulator.url) as old, Client(simulator.url) as other:
        old.login("a").subscribe("AM.*")
        other.login("b").subscribe("AM.*")
        with Client(simulator.url) as new:
            new.login("a").subscribe("AM.*")
            events, code = old.ending()
            assert (events[-1]["status"], code) == ("max_connections", 1008)
            new.take(20)
            other.take(20)


def test_the_newcomer_may_be_cut_by_a_fault() -> None:
    faults = Faults()
    with Simulator(market(3, ENDLESS), speed=60_000, faults=faults) as simulator:
        simulator.inject("max_connections_new")
        with subscribed(simulator) as client:
            events, code = client.ending()
        assert ([event["status"] for event in events], code) == (["max_connections"], 1008)
        with subscribed(simulator) as client:
            client.take(5)


def test_a_slow_consumer_is_still_told_so() -> None:
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)]
    simulator = Simulator(SteadyMarket(2_000), speed=1_200, queue_events=5_000)
    with simulator, subscribed(simulator, sockopt=small) as slow:
        wait_until_alone(simulator)
        events, code = slow.ending()
    assert (events[-1]["status"], code) == ("slow_consumer", 1008)


STORMY = {
    **dict.fromkeys(CONNECTION_FAULTS, 0.008), "half_open": 0.004, "silence": 0.0,
    "duplicate": 0.02, "late": 0.02, "corrected": 0.02, "out_of_order": 0.02, "garbage": 0.02,
    "max_connections_new": 0.2, "rest_429": 0.2, "rest_5xx": 0.2, "rest_cut": 0.1, "rest_null": 0.5,
}  # fmt: skip


def test_a_client_that_fills_what_it_missed_ends_with_the_truth() -> None:
    """Filled are the minutes of each outage and the `LATEST` before it, and nothing else."""
    symbols = ["AAPL", "SPY", "ZZZZ"]
    source = RandomMarket(symbols, seed=2, start=MORNING, end=MORNING + timedelta(minutes=390))
    faults = Faults(STORMY, seed=7)
    simulator = Simulator(source, speed=2_400, frame_events=2, faults=faults, keys=[KEY])
    frames: list[tuple[int, bytes]] = []  # with the number of the connection that brought it
    stop = threading.Event()
    with simulator:
        client = FeedClient(
            simulator.url,
            KEY,
            ["*"],
            on_frame=lambda data, _: frames.append((client.connections, data)),
            stop=stop,
            ping_after=0.1,
            ping_timeout=0.1,
            backoff=Backoff(first=0.02, cap=0.02),
            crowded_backoff=Backoff(first=0.02, cap=0.02),
        )
        thread = threading.Thread(target=client.run)
        thread.start()
        assert simulator.finished.wait(90)
        simulator.settle()
        stop.set()
        thread.join(DEADLINE)
        truth = {key: bar[:7] for key, bar in simulator.truth().items()}
        table, outages = replayed(frames)
        assert {key: bar[:7] for key, bar in table.items()} != truth
        assert len(outages) >= 4
        for begin, end in [*outages, (max(ts for _, ts in table), MORNING + timedelta(hours=7))]:
            for symbol in symbols:
                for bar in filled(simulator, symbol, begin - timedelta(minutes=LATEST), end):
                    table[symbol, bar.ts] = bar
        struck = Counter(faults.counts)
    assert {key: bar[:7] for key, bar in table.items()} == truth
    assert {"duplicate", "late", "corrected", "out_of_order", "drop"} <= set(struck)
    assert {"rest_429", "rest_5xx", "rest_cut"} <= set(struck)


Table = dict[tuple[str, datetime], Bar]


def replayed(frames: list[tuple[int, bytes]]) -> tuple[Table, list[tuple[datetime, datetime]]]:
    """What the stream leaves in a table, and the outages: the last bar before, the first after."""
    table: Table = {}
    outages: list[tuple[datetime, datetime]] = []
    newest, on = MORNING, 0
    for connection, data in frames:
        for bar in parse_frame(data, MORNING).bars:
            if bar.symbol == "GARBAGE":
                continue
            if connection != on:
                outages.append((newest, max(newest, bar.ts)))
                on = connection
            table[bar.symbol, bar.ts] = bar
            newest = max(newest, bar.ts)
    return table, outages


def filled(simulator: Simulator, symbol: str, begin: datetime, end: datetime) -> list[Bar]:
    retries = urllib3.Retry(total=20, status_forcelist=[429, 500, 502, 503, 504])
    start, stop = (int(moment.timestamp() * 1_000) for moment in (begin, end))
    answer = urllib3.request(
        "GET",
        f"{simulator.rest_url}/v2/aggs/ticker/{symbol}/range/1/minute/{start}/{stop}"
        "?adjusted=false",
        headers={"Authorization": f"Bearer {KEY}"},
        retries=retries,
    )
    assert answer.status == 200
    return [
        Bar(symbol, datetime.fromtimestamp(row["t"] / 1_000, UTC),
            row["o"], row["h"], row["l"], row["c"], row["v"], row["vw"], row["n"])
        for row in orjson.loads(answer.data).get("results") or []
    ]  # fmt: skip


def test_a_gap_is_seen_by_rest_alone() -> None:
    faults = Faults({"gap": 0.3})
    with Simulator(market(3, 30), speed=FAST, faults=faults) as simulator:
        with subscribed(simulator):
            wait_for_end(simulator)
            simulator.settle()
        missing = set(simulator.truth()) - set(simulator.sent)
        assert len(missing) == faults.counts["gap"] > 10
        for symbol in market(3, 30).symbols:
            begin, end = MORNING, MORNING + timedelta(hours=1)
            told = {(bar.symbol, bar.ts) for bar in filled(simulator, symbol, begin, end)}
            assert {key for key in missing if key[0] == symbol} <= told


def test_a_minute_is_disturbed_as_a_whole_whatever_the_channel() -> None:
    """Trades and seconds suffer too; what was late at the end of the market still comes."""
    faults = Faults({"late": 0.1, "duplicate": 0.1})
    source = market(["AAPL"], 6)
    with Simulator(source, speed=FAST, faults=faults) as simulator, Client(simulator.url) as client:
        client.login().subscribe("T.*,A.*,AM.*")
        wait_for_end(simulator)
        assert simulator.settle(DEADLINE)
        events: list[dict[str, Any]] = []
        while len(events) < simulator.events_sent:
            events += client.frame()
    counts = Counter(event["ev"] for event in events)
    distinct = Counter(ev for ev, _ in {(e["ev"], str(e)) for e in events})
    assert sum(counts.values()) - sum(distinct.values()) == faults.counts["duplicate"] > 10
    bars: list[Minute] = list(source.minutes())
    assert distinct["AM"] == sum(len(minute.bars) for minute in bars)
    assert distinct["T"] >= sum(bar.trades or 0 for minute in bars for bar in minute.bars)
