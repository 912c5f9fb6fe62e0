"""The vendor's protocol, rule by rule, over a real socket."""

import http.client
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import websocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tickstock.simulator import Simulator

from .client import (
    DEADLINE,
    FAST,
    KEY,
    Client,
    as_bar,
    bars_of,
    market,
    subscribed,
    wait_for_end,
)

PAUSED_MINUTES = 1_000_000


@pytest.fixture(scope="module")
def quiet() -> Iterator[Simulator]:
    """A simulator whose clock stands still, so that only answers are on the wire."""
    simulator = Simulator(market(3, PAUSED_MINUTES), speed=FAST)
    simulator.pause()
    with simulator:
        yield simulator


def test_greeting_and_auth(quiet: Simulator) -> None:
    with Client(quiet.url) as client:
        assert client.frame() == [
            {"ev": "status", "status": "connected", "message": "Connected Successfully"}
        ]
        client.send("auth", KEY)
        assert client.frame() == [
            {"ev": "status", "status": "auth_success", "message": "authenticated"}
        ]


@pytest.mark.parametrize("key", ["", "wrong", "SIMULATOR", "simulato"])
def test_wrong_key_is_told_and_tcp_ends_without_a_close_frame(quiet: Simulator, key: str) -> None:
    with Client(quiet.url) as client:
        client.frame()
        client.send("auth", key)
        assert client.status() == ("auth_failed", "authentication failed")
        assert client.ending() == ([], None)


def test_wrong_key_after_the_right_one_ends_it_too(quiet: Simulator) -> None:
    with Client(quiet.url) as client:
        client.login().send("auth", "wrong")
        assert client.status() == ("auth_failed", "authentication failed")
        assert client.ending() == ([], None)


def test_any_key_where_none_are_given() -> None:
    with Simulator(market(1, 1), keys=None) as simulator, Client(simulator.url) as client:
        client.login("whatever")


def test_one_key_may_be_given_as_a_text() -> None:
    with Simulator(market(1, 1), keys="secret") as simulator:
        with Client(simulator.url) as client:
            client.login("secret")
        with Client(simulator.url) as client:
            client.frame()
            client.send("auth", "s")
            assert client.status()[0] == "auth_failed"


def test_no_auth_in_time() -> None:
    with Simulator(market(1, 1), auth_timeout=0.2) as simulator, Client(simulator.url) as client:
        client.frame()
        assert client.status() == ("auth_timeout", "No authentication request received.")
        assert client.ending() == ([], None)


def test_commands_before_auth_are_told_to_wait(quiet: Simulator) -> None:
    with Client(quiet.url) as client:
        client.frame()
        for action in ("subscribe", "unsubscribe", "dance"):
            client.send(action, "AM.AAPL")
            assert client.status()[0] == "auth_required"
        client.send_raw("{")
        assert client.status()[0] == "error"
        client.send("auth", KEY)
        assert client.status() == ("auth_success", "authenticated")


def test_one_status_a_topic_in_one_frame(quiet: Simulator) -> None:
    with Client(quiet.url) as client:
        client.login().send(
            "subscribe", "AM.AAPL, AM.NOSUCH,XX.AAPL,Q.*,LULD.AAPL,AM,AM.,nonsense,"
        )
        assert client.frame() == [
            {"ev": "status", "status": "success", "message": "subscribed to: AM.AAPL"},
            {"ev": "status", "status": "success", "message": "subscribed to: AM.NOSUCH"},
            {"ev": "status", "status": "error", "message": "not authorized"},
            {"ev": "status", "status": "error", "message": "not authorized"},
        ]
        client.send("unsubscribe", "AM.AAPL,AM.*")
        assert client.frame() == [
            {"ev": "status", "status": "success", "message": "unsubscribed to: AM.AAPL"},
            {"ev": "status", "status": "success", "message": "unsubscribed to: AM.*"},
        ]


def test_unknown_topics_get_no_reply_at_all(quiet: Simulator) -> None:
    with Client(quiet.url) as client:
        client.login()
        client.send("subscribe", "XX.AAPL,am.AAPL")
        client.send("unsubscribe", "XX.AAPL")
        client.send("subscribe", "AM.MSFT")
        assert client.status() == ("success", "subscribed to: AM.MSFT")


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "nonsense",
        "null",
        "[]",
        '[{"action":"subscribe","params":"AM.*"}]',
        '{"action":"subscribe"}',
        '{"action":["subscribe"],"params":"AM.*"}',
        '{"action":"subscribe","params":["AM.*"]}',
        '{"action":"dance","params":""}',
        "[" * 100_000,
        b"\xff\x00\xfe",
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
def test_garbage_is_answered_by_an_error(quiet: Simulator, garbage: str | bytes) -> None:
    with Client(quiet.url) as client:
        client.login().send_raw(garbage)
        assert client.status()[0] == "error"
        client.subscribe("AM.AAPL")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
_COMMANDS = st.fixed_dictionaries(
    {"action": st.sampled_from(["subscribe", "unsubscribe", "dance"]) | _JSON, "params": _JSON}
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text() | st.binary() | _COMMANDS.map(str), max_size=8))
def test_nothing_a_client_sends_breaks_the_conversation(
    quiet: Simulator, messages: list[str | bytes]
) -> None:
    with Client(quiet.url) as client:
        client.login()
        for message in messages:
            client.send_raw(message)
        client.send("subscribe", "AM.LAST")
        while (answer := client.status()) != ("success", "subscribed to: AM.LAST"):
            assert answer[0] == "error"


def test_other_paths_are_not_found(quiet: Simulator) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        Client(quiet.url.replace("/stocks", "/crypto"))
    assert refusal.value.status_code == 404


def test_what_is_no_websocket_leaves_others_alone(
    quiet: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    address = urlsplit(quiet.url)
    plain = http.client.HTTPConnection(str(address.hostname), quiet.port, timeout=DEADLINE)
    plain.request("GET", "/stocks")
    assert plain.getresponse().status == 426
    with socket.create_connection(("127.0.0.1", quiet.port), DEADLINE) as noise:
        noise.sendall(b"\x00\x01\x02\r\n\r\n" * 100)
        while noise.recv(4096):
            pass
    with Client(quiet.url) as client:
        client.login().subscribe("AM.AAPL")
    assert not caplog.records


def test_unknown_ticker_is_acknowledged_then_silent() -> None:
    source = market(["AAPL", "MSFT"], 30)
    with (
        Simulator(source, speed=FAST) as simulator,
        subscribed(simulator, "AM.NOSUCH,AM.MSFT") as client,
    ):
        expected = [bar for bar in bars_of(source) if bar.symbol == "MSFT"]
        assert [event["sym"] for event in client.take(len(expected))] == ["MSFT"] * len(expected)
        wait_for_end(simulator)
        assert client.is_silent(0.1)


def test_wildcard_carries_everything_once_however_it_is_subscribed() -> None:
    source = market(40, 25)
    with Simulator(source, speed=FAST) as simulator, Client(simulator.url) as client:
        simulator.pause()
        client.login().subscribe("AM.AAPL,AM.*,AM.*")
        simulator.resume()
        expected = [bar._replace(trades=None) for bar in bars_of(source)]
        assert [as_bar(event) for event in client.take(len(expected))] == expected
        wait_for_end(simulator)
        assert client.is_silent(0.1)
        assert list(simulator.sent.values()) == expected
        assert simulator.events_sent == len(expected)


def test_no_bar_after_the_end_of_a_subscription_is_acknowledged() -> None:
    with (
        Simulator(market(20, PAUSED_MINUTES), speed=60_000) as simulator,
        subscribed(simulator) as client,
    ):
        client.take(50)
        client.send("unsubscribe", "AM.*")
        client.take_acknowledgement("unsubscribed to: AM.*")
        assert simulator.subscribers == 0
        assert client.is_silent(0.1)
        stopped_at = simulator.clock
        assert stopped_at
        client.subscribe("AM.AAPL,AM.TSLA")
        assert simulator.subscribers == 1
        later = [as_bar(event) for event in client.take(50)]
        assert {bar.symbol for bar in later} == {"AAPL", "TSLA"}
        assert min(bar.ts for bar in later) > stopped_at
