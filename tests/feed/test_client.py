"""The life of a connection to the feed, over real sockets."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.e2e.program import eventually
from tickstock.feed.client import State

from .client_run import (
    BAR,
    KEY,
    Recorder,
    failure,
    running,
    sends_a_bar,
)
from .scripted_server import AUTHENTICATED, CONNECTED, DEADLINE, Peer, ScriptedServer


def test_frames_are_handed_over_as_they_came() -> None:
    frames = [
        json.dumps([BAR, {"ev": "T"}]).encode(), b"garbage \xff", b"[]", b"", b'{"ev": "AM"}',
        b"x" * 200_000,
    ]  # fmt: skip
    login: list[object] = []

    def script(peer: Peer) -> None:
        login.append(peer.log_in())
        login.append(peer.expect("subscribe"))
        for frame in frames:
            peer.text(frame)
        peer.stay()

    before = datetime.now(UTC)
    with ScriptedServer(script) as server, running(server.url, "AAPL", "TSLA") as run:
        received = [run.received.get(timeout=DEADLINE) for _ in frames]
        states = [run.client.state]
        run.stop_in_time()
        states.append(run.client.state)
    assert login == [KEY, "AM.AAPL,AM.TSLA"]
    assert [frame for frame, _ in received] == frames
    times = [before, *(time for _, time in received), datetime.now(UTC)]
    assert times == sorted(times)
    assert all(time.tzinfo is UTC for time in times)
    assert (run.client.frames, run.client.bytes) == (len(frames), sum(map(len, frames)))
    assert (run.client.connections, run.client.drop_count, run.client.last_drop) == (1, 0, None)
    assert states == [State.STREAMING, State.STOPPED]


def test_each_change_of_state_is_one_line(log: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.serve()
        peer.close(1011, "keepalive ping timeout")

    with ScriptedServer(script, sends_a_bar()) as server, running(server.url) as run:
        run.bar()
    lines = [r.getMessage() for r in log.records if r.name == "tickstock.feed.client"]
    life = [f"feed: connecting to {server.url}", "feed: authenticating", "feed: streaming"]
    cut = ["feed: it cuts us off as a slow consumer, 1 times", "feed: waiting 0.0 s before"]
    expected = [*life, *cut, *life, "feed: stopped"]
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
    assert "1011 keepalive ping timeout" in lines[4]


def test_acknowledgements_are_counted_and_long_lists_are_split() -> None:
    symbols = [f"SYM{number}" for number in range(3000)]
    asked: list[str] = []

    def script(peer: Peer) -> None:
        peer.log_in()
        messages = 0
        while len(asked) < len(symbols):
            topics = peer.expect("subscribe").split(",")
            peer.status(*(("success", f"subscribed to: {topic}") for topic in topics))
            asked.extend(topics)
            messages += 1
        assert messages > 2
        peer.send([BAR])
        peer.stay()

    with ScriptedServer(script) as server, running(server.url, *symbols) as run:
        run.bar()
        assert run.client.acknowledged == len(symbols)
    assert asked == [f"AM.{symbol}" for symbol in symbols]


def test_only_what_changes_of_the_symbols_is_asked_for() -> None:
    def script(peer: Peer) -> None:
        assert peer.serve() == ["AM.A", "AM.B"]
        peer.send([BAR])
        assert peer.expect("unsubscribe") == "AM.B"
        assert peer.expect("subscribe") == "AM.C"
        peer.send([BAR])
        peer.stay()

    told: list[list[str]] = []
    with (
        ScriptedServer(script) as server,
        running(server.url, "A", "B", on_subscribed=lambda names: told.append(list(names))) as run,
    ):
        run.bar()
        run.client.change_symbols(["B", "A"])  # a line of the file has moved
        eventually(lambda: run.client._wanted is None, "that is seen")
        run.client.change_symbols(["A", "C"])
        run.bar()
    assert told == [["A", "B"], ["A", "C"]]


def test_missing_acknowledgements_are_reported_and_not_waited_for(
    log: pytest.LogCaptureFixture,
) -> None:
    def script(peer: Peer) -> None:
        peer.log_in()
        peer.expect("subscribe")
        peer.await_pings(8)  # silence: the client's patience passes meanwhile
        peer.send([BAR])
        peer.stay()

    options = {"answer_timeout": 2, "ping_after": 0.3}
    with ScriptedServer(script) as server, running(server.url, **options) as run:
        run.bar()
    assert run.client.connections == 1
    assert log.messages.count("feed: it acknowledged 0 of 1 topics") == 1


def test_data_and_garbage_between_the_handshake_are_handed_over() -> None:
    def script(peer: Peer) -> None:
        peer.send([{"ev": "status", "status": CONNECTED[0], "message": ""}, BAR])
        peer.expect("auth")
        peer.text(b"garbage")
        peer.status(("news", "welcome\nback"), AUTHENTICATED)
        peer.expect("subscribe")
        peer.stay()

    with ScriptedServer(script) as server, running(server.url) as run:
        assert b"AAPL" in run.frame()
        assert run.frame() == b"garbage"


def test_a_quiet_market_is_no_drop_while_pings_are_answered() -> None:
    def script(peer: Peer) -> None:
        peer.serve()
        peer.await_pings(4)
        peer.send([BAR])
        peer.stay()

    options = {"ping_after": 0.1, "ping_timeout": 5}
    with ScriptedServer(script) as server, running(server.url, **options) as run:
        run.bar()
        assert (run.client.connections, run.client.drop_count) == (1, 0)


def test_data_after_an_unanswered_ping_keeps_the_connection() -> None:
    def script(peer: Peer) -> None:
        peer.serve()
        for number in range(3):
            peer.await_pings(1, answer=False)
            peer.send([{**BAR, "v": number}])
        peer.stay()

    options = {"ping_after": 0.1, "ping_timeout": 5}
    with ScriptedServer(script) as server, running(server.url, **options) as run:
        assert [run.bar()["v"] for _ in range(3)] == [0, 1, 2]
        assert run.client.connections == 1


def test_pings_of_the_feed_are_answered() -> None:
    def script(peer: Peer) -> None:
        peer.serve()
        peer.ping(b"are you there?")
        peer.send([BAR])
        peer.stay()

    with ScriptedServer(script) as server, running(server.url) as run:
        run.bar()


def test_a_frame_that_arrives_in_pieces_is_whole() -> None:
    frame = json.dumps([BAR]).encode()

    def script(peer: Peer) -> None:
        peer.serve()
        peer.wire(b"\x81\x7e" + len(frame).to_bytes(2)[:1])
        peer.await_pings(
            1, answer=False
        )  # the client looked up in the middle of the frame's header
        peer.wire(len(frame).to_bytes(2)[1:] + frame[:10])
        peer.await_pings(1, answer=False)
        peer.wire(frame[10:])
        peer.fragments(frame[:5], frame[5:50], frame[50:])
        peer.stay()

    options = {"ping_after": 0.1, "ping_timeout": 5}
    with ScriptedServer(script) as server, running(server.url, **options) as run:
        run.frame()  # the acknowledgement
        assert [run.frame(), run.frame()] == [frame, frame]
        assert run.client.connections == 1


def _before_the_greeting(peer: Peer) -> None:
    pass


def _in_the_authentication(peer: Peer) -> None:
    peer.status(CONNECTED)
    peer.expect("auth")


@pytest.mark.parametrize("begin", [_before_the_greeting, _in_the_authentication, Peer.serve])
def test_stop_ends_it_wherever_it_is(begin: Callable[[Peer], object]) -> None:
    begun = threading.Event()

    def script(peer: Peer) -> None:
        begin(peer)
        begun.set()
        peer.play_dead()

    with ScriptedServer(script) as server, running(server.url) as run:
        assert begun.wait(DEADLINE)
        run.stop_in_time()
        assert run.client.state is State.STOPPED
        assert run.client.drop_count == 0


def test_close_ends_a_long_wait() -> None:
    patient = Recorder(1000.0)
    with ScriptedServer(Peer.hang_up) as server, running(server.url, backoff=patient) as run:
        patient.await_next()
        run.client.close()
        run.stop_in_time()
    assert server.connections == 1


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError, TimeoutError])
def test_a_failing_receiver_is_not_taken_for_a_drop(error: type[Exception]) -> None:
    def fail(frame: bytes, received_at: datetime) -> None:
        raise error

    with ScriptedServer(sends_a_bar()) as server:
        assert failure(server.url, on_frame=fail)[0] == error.__name__
