"""Refusals, drops and how the feed client comes back, over real sockets."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from tickstock.feed.client import State
from tickstock.ingest.metrics import classify

from .client_run import BAR, KEY, failure, running, sends_a_bar
from .scripted_server import CONNECTED, ClientLeftError, Peer, ScriptedServer

MAX_CONNECTIONS = (
    "max_connections",
    "Maximum number of websocket connections exceeded. You have reached the limit of your plan.",
)


REFUSALS = [
    (("auth_failed", f"authentication failed for {KEY}\n"), "refuses the API key (auth_failed: "),
    (("auth_failed", "Your plan doesn't include websocket access."), "has no access to this feed"),
    (("error", "authentication failed"), "refuses the API key"),
]


@pytest.mark.parametrize("leave", [Peer.reset, Peer.hang_up, Peer.stay])
@pytest.mark.parametrize(("status", "words"), REFUSALS)
def test_a_refused_key_is_final(
    status: tuple[str, str], words: str, leave: Callable[[Peer], None]
) -> None:
    def script(peer: Peer) -> None:
        peer.status(CONNECTED)
        peer.expect("auth")
        peer.status(status)
        leave(peer)

    with ScriptedServer(script) as server:
        name, message = failure(server.url)
    assert name == "FeedRefusedError"
    assert words in message
    assert "MASSIVE_API_KEY" in message
    assert server.url in message
    assert server.connections == 1


@pytest.mark.parametrize("mixed", [False, True])
def test_a_topic_outside_the_plan_is_final(mixed: bool) -> None:
    def script(peer: Peer) -> None:
        peer.log_in()
        peer.expect("subscribe")
        status = {"ev": "status", "status": "error", "message": "not authorized"}
        peer.send([BAR] * 50 + [status] if mixed else [status])
        peer.stay()

    with ScriptedServer(script) as server:
        name, message = failure(server.url, "A", "B", "C", "D")
    assert name == "FeedRefusedError"
    assert "does not include AM.A, AM.B, AM.C and 1 more (error: not authorized)" in message
    assert "TICKSTOCK_FEED_URL" in message


def test_a_key_that_is_refused_later_ends_the_client_too() -> None:
    def refuse(peer: Peer) -> None:
        peer.status(CONNECTED)
        peer.expect("auth")
        peer.status(REFUSALS[0][0])
        peer.reset()

    def drop(peer: Peer) -> None:
        peer.serve()
        peer.send([BAR])
        peer.reset()

    with ScriptedServer(drop, refuse) as server:
        assert failure(server.url)[0] == "FeedRefusedError"
    assert server.connections == 2


def _at_greeting(peer: Peer) -> None:
    peer.hang_up()


def _auth_timeout(peer: Peer) -> None:
    peer.status(CONNECTED)
    peer.expect("auth")
    peer.status(("auth_timeout", "No authentication request received."))
    peer.close(1000)


def _close(code: int, reason: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.serve()
        peer.close(code, reason)

    return script


def _close_and_reset(peer: Peer) -> None:
    peer.serve()
    peer.close(1008, "slow consumer")
    peer.reset()


def _reset(peer: Peer) -> None:
    peer.serve()
    peer.reset()


def _broken_frame(peer: Peer) -> None:
    peer.serve()
    peer.wire(b"\x83\x00")  # a reserved opcode
    peer.stay()


def _no_greeting(peer: Peer) -> None:
    peer.stay()


def _no_answer(peer: Peer) -> None:
    peer.status(CONNECTED)
    peer.expect("auth")
    peer.stay()


def _half_open(peer: Peer) -> None:
    peer.serve()
    peer.play_dead()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (_at_greeting, "connection lost: the other side hung up"),
        (_auth_timeout, "the feed waited in vain for the authentication (auth_timeout: No auth"),
        (_no_greeting, "no greeting within 3 s"),
        (_no_answer, "no answer to the authentication within 3 s"),
        (_close(1008, "slow consumer"), "closed by the feed: 1008 slow consumer"),
        (_close_and_reset, "closed by the feed: 1008 slow consumer"),
        (_close(1011, ""), "closed by the feed: 1011"),
        (_close(1000, f"bye {KEY}"), "closed by the feed: 1000 bye ***"),
        (_reset, "connection lost: the other side hung up"),
        (_broken_frame, "connection lost: it breaks the WebSocket protocol"),
        (_half_open, "dead: silent for "),
    ],
)
def test_a_drop_is_followed_by_a_new_connection(
    script: Callable[[Peer], None], reason: str
) -> None:
    options = {"answer_timeout": 3, "ping_after": 0.2, "ping_timeout": 3}
    with ScriptedServer(script, sends_a_bar()) as server, running(server.url, **options) as run:
        run.bar()
        assert run.client.state is State.STREAMING
        assert (run.client.connections, run.client.drop_count) == (2, 1)
        assert run.client.acknowledged == 1
        assert run.client.last_drop is not None
        assert run.client.last_drop.reason.startswith(reason)
        assert run.crowded_backoff.calls.count("next") == 0


def _crowded_at_greeting(peer: Peer) -> None:
    peer.status(MAX_CONNECTIONS)
    peer.close(1008)


def _crowded_before_the_key_is_read(peer: Peer) -> None:
    peer.status(CONNECTED)
    peer.status(MAX_CONNECTIONS)
    peer.reset()


def _crowded_after_acknowledgement(peer: Peer) -> None:
    peer.serve()
    peer.status(MAX_CONNECTIONS)
    peer.reset()


@pytest.mark.parametrize(
    "script",
    [
        _crowded_at_greeting,
        _crowded_before_the_key_is_read,
        _crowded_after_acknowledgement,
        _close(1008, "Maximum number of websocket connections exceeded"),
    ],
)
def test_another_client_with_this_key_is_named_and_given_more_time(
    script: Callable[[Peer], None],
) -> None:
    with ScriptedServer(script, script, sends_a_bar()) as server, running(server.url) as run:
        run.bar()
        assert run.client.last_drop is not None
        assert run.client.last_drop.reason.startswith("another client uses this API key")
        assert run.client.slow_cuts == 0
        run.stop_in_time()
        assert run.crowded_backoff.calls == ["next", "next", "reset"]
        assert run.backoff.calls == ["reset"]


def test_the_backoff_is_reset_by_data_and_not_by_the_login() -> None:
    def no_data(peer: Peer) -> None:
        peer.serve()
        peer.reset()

    def data(peer: Peer) -> None:
        peer.serve()
        peer.send([{"ev": "T", "sym": "AAPL"}])
        peer.send([BAR])
        peer.send([BAR])
        peer.hang_up()

    scripts = (no_data, no_data, data, no_data, sends_a_bar(sym="END"))
    with ScriptedServer(*scripts) as server, running(server.url) as run:
        while run.bar()["sym"] != "END":
            pass
        run.stop_in_time()
    assert run.backoff.calls == ["next", "next", "reset", "next", "next", "reset"]


def _called_slow_and_reset(peer: Peer) -> None:
    peer.serve()
    peer.status(("slow_consumer", "Connection closed: slow consumer"))
    peer.reset()


def _called_slow_and_closed(peer: Peer) -> None:
    peer.serve()
    peer.status(("error", "Slow consumer detected"))
    peer.close(1000, "bye")


@pytest.mark.parametrize(
    "script",
    [
        _close(1008, "slow consumer"),
        _close(1008, ""),
        _close(1011, ""),
        _called_slow_and_reset,
        _called_slow_and_closed,
    ],
)
def test_a_cut_as_a_slow_consumer_is_counted_and_explained(
    script: Callable[[Peer], None], caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedServer(script, script, sends_a_bar()) as server, running(server.url) as run:
        run.bar()
        assert run.client.slow_cuts == 2
        assert {classify(drop.reason) for drop in run.client.drops} == {"slow_consumer"}
    assert "as a slow consumer, 2 times so far" in caplog.text


@pytest.mark.parametrize(
    ("script", "word"),
    [(_crowded_at_greeting, "another client uses"), (_called_slow_and_reset, "slow consumer")],
)
def test_what_a_connection_was_told_does_not_explain_the_end_of_the_next(
    script: Callable[[Peer], None], word: str
) -> None:
    with ScriptedServer(script, _reset, sends_a_bar()) as server, running(server.url) as run:
        run.bar()
        first, second = (drop.reason for drop in run.client.drops)
    assert word in first
    assert second == "connection lost: the other side hung up"


def test_who_has_subscribed_nothing_is_not_slow() -> None:
    def close(peer: Peer) -> None:
        peer.status(CONNECTED)
        peer.close(1008)

    with ScriptedServer(close, sends_a_bar()) as server, running(server.url) as run:
        run.bar()
        assert [drop.reason for drop in run.client.drops] == ["closed by the feed: 1008"]
        assert run.client.slow_cuts == 0


def _silent(peer: Peer) -> None:
    peer.serve()
    peer.stay()


def _pings(peer: Peer) -> None:
    peer.serve()
    while True:
        peer.ping(b"more often than anybody looks")


def _statuses(peer: Peer) -> None:
    peer.serve()
    while True:
        peer.status(("success", "heartbeat"))


@pytest.mark.parametrize("chatter", [_pings, _statuses])
def test_a_feed_that_talks_and_sends_no_data_is_silent(chatter: Callable[[Peer], None]) -> None:
    def chat(peer: Peer) -> None:
        with suppress(ClientLeftError):
            chatter(peer)

    with (
        ScriptedServer(chat, sends_a_bar()) as server,
        running(server.url, patience=lambda: 2) as run,
    ):
        run.bar()
        assert run.client.last_drop is not None
        assert run.client.last_drop.reason.startswith("silent: ")


def test_a_feed_that_only_pings_does_not_answer() -> None:
    def chat(peer: Peer) -> None:
        with suppress(ClientLeftError):
            while True:
                peer.ping(b"and no greeting")

    with (
        ScriptedServer(chat, sends_a_bar()) as server,
        running(server.url, answer_timeout=2) as run,
    ):
        run.bar()
        assert run.client.last_drop is not None
        assert "no greeting within 2 s" in run.client.last_drop.reason


def _one_frame(peer: Peer, piece: bytes) -> None:
    peer.wire(b"\x81\x7f" + (1 << 40).to_bytes(8))
    while True:
        peer.wire(piece)


def _fragments(peer: Peer, piece: bytes) -> None:
    head = b"\x7f" + len(piece).to_bytes(8)
    peer.wire(b"\x01" + head + piece)
    while True:
        peer.wire(b"\x00" + head + piece)


@pytest.mark.parametrize("send", [_one_frame, _fragments])
def test_a_message_without_end_does_not_fill_the_memory(
    send: Callable[[Peer, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickstock.feed.opening.LARGEST_MESSAGE", 1_000_000)

    def script(peer: Peer) -> None:
        peer.serve()
        with suppress(ConnectionError):  # the client leaves
            send(peer, 100_000 * b"x")

    with ScriptedServer(script, sends_a_bar()) as server, running(server.url) as run:
        run.bar()
        assert run.client.last_drop is not None
        assert run.client.last_drop.reason == "connection lost: a message of more than 1 MB"


def test_an_open_and_silent_feed_is_given_up_when_patience_ends() -> None:
    with (
        ScriptedServer(_silent, sends_a_bar()) as server,
        running(server.url, patience=lambda: 2) as run,
    ):
        run.bar()
        assert run.client.last_drop is not None
        assert run.client.last_drop.reason.startswith("silent: no data for 2 s, in a regular")
