"""The client of the live feed: one thread that keeps a connection and drains it, and nothing else.

A life: connect, authenticate, subscribe, drain; after a drop, wait and begin again. The feed
replays nothing and cuts off slow consumers, so frames are handed over raw, with their receive time.
"""

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from websocket import ABNF, WebSocketTimeoutException

from tickstock.errors import FeedRefusedError, FeedUnreachableError
from tickstock.feed import protocol
from tickstock.feed.backoff import Backoff
from tickstock.feed.frames import parse_frame
from tickstock.feed.opening import (
    CONNECTION_ERRORS,
    FeedSocket,
    check_url,
    describe,
    open_socket,
    redact_url,
)
from tickstock.feed.protocol import Status, StatusKind

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds until a silent socket lets us look at the stop event
_DROPS_KEPT = 100
_POLICY_VIOLATION = 1008  # for too many connections, which it says, or for a slow consumer
_INTERNAL_ERROR = 1011  # how clients see a cut by the vendor's keep-alive

_FINAL = {
    StatusKind.AUTH_FAILED: (
        "refuses the API key ({said}): set MASSIVE_API_KEY to a valid key of this feed."
    ),
    StatusKind.NO_ACCESS: (
        "knows the key in MASSIVE_API_KEY, but its plan has no access to this feed ({said}): "
        "upgrade the plan, or set TICKSTOCK_FEED_URL to a feed that it includes."
    ),
    StatusKind.NOT_AUTHORIZED: (
        "says that the plan of the key in MASSIVE_API_KEY does not include {topics} ({said}): "
        "upgrade the plan, or set TICKSTOCK_FEED_URL to a feed that it includes."
    ),
}


class State(StrEnum):
    """What the client is doing."""

    IDLE = "idle"
    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"
    STREAMING = "streaming"
    WAITING = "waiting"
    STOPPED = "stopped"


class Drop(NamedTuple):
    """A connection that was lost or did not come about."""

    at: datetime
    """UTC."""
    reason: str


class _DroppedError(Exception):
    """This connection is over; the next one may work."""


class FeedClient:
    """Keeps a subscription to the feed alive and hands over every frame that comes.

    `on_frame(frame, received_at)` is called in the thread of `run` with the raw bytes and the time
    of receipt (UTC); it must be quick, such as a queue's put. So must `on_subscribed(symbols)`, called
    when symbols have been asked for, on a connection or by `change_symbols`, and `on_lost(reason)`,
    called when a connection with a subscription is lost. `symbols` are tickers, or `*`; `channels` are
    of AM (minutes), A (seconds) and T (trades).
    All durations are in seconds: `answer_timeout` for each step of a connection's beginning, a
    ping after `ping_after` of silence, a dead socket after `ping_timeout` more. A connection that
    answers pings and sends no data for longer than `patience()` is given up; None is forever.
    Waits between connections follow `backoff`; `crowded_backoff` while another client has the key.

    Raises FeedUnreachableError for a URL that cannot be one, TickstockError for a bad symbol.
    """

    def __init__(
        self,
        url: str,
        key: str,
        symbols: Iterable[str],
        *,
        on_frame: Callable[[bytes, datetime], None],
        on_subscribed: Callable[[Sequence[str]], None] = lambda _: None,
        on_lost: Callable[[str], None] = lambda _: None,
        patience: Callable[[], float | None] = lambda: None,
        stop: threading.Event,
        channels: Sequence[str] = ("AM",),
        fail_fast_at_start: bool = True,
        answer_timeout: float = 10.0,
        ping_after: float = 20.0,
        ping_timeout: float = 10.0,
        backoff: Backoff | None = None,
        crowded_backoff: Backoff | None = None,
    ) -> None:
        check_url(url)
        self.state = State.IDLE
        self.connections = 0
        """Connections opened so far."""
        self.frames = 0
        """Frames handed over; `bytes` is their size."""
        self.bytes = 0
        self.acknowledged = 0
        """Topics that the feed acknowledged on the current connection."""
        self.drops: deque[Drop] = deque(maxlen=_DROPS_KEPT)
        """The latest drops, oldest first; `drop_count` counts them all."""
        self.drop_count = 0
        self.slow_cuts = 0
        """Drops because the feed found us too slow."""
        self._url = url
        self._key = key
        self._channels = channels
        self._symbols = list(symbols)
        self._topics = self._topics_of(self._symbols)
        self._wanted: list[str] | None = None
        self._subscribed = False
        self._data_marks = [f'"{channel}"'.encode() for channel in channels]
        self._on_frame = on_frame
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self._patience = patience
        self._stop = stop
        self._fail_fast = fail_fast_at_start
        self._answer_timeout = answer_timeout
        self._ping_after = ping_after
        self._ping_timeout = ping_timeout
        self._poll = min(_POLL, ping_after, ping_timeout, answer_timeout)
        self._backoff = backoff or Backoff()
        self._crowded_backoff = crowded_backoff or Backoff(first=30.0, cap=300.0)
        self._crowded_until = -math.inf
        self._called_slow = False

    @property
    def last_drop(self) -> Drop | None:
        """The latest drop, None as long as nothing went wrong."""
        return self.drops[-1] if self.drops else None

    def close(self) -> None:
        """Ask `run` to end, from any thread; it does so within a second or so."""
        self._stop.set()

    def change_symbols(self, symbols: Iterable[str]) -> None:
        """Subscribe to these from now on, and to no others; from any thread, within a moment.

        Raises TickstockError for a bad symbol.
        """
        wanted = list(symbols)
        self._topics_of(wanted)
        self._wanted = wanted

    def run(self) -> None:
        """Keep the subscription alive until `stop` is set.

        Raises FeedRefusedError when the feed refuses for good (key, plan), and FeedUnreachableError
        when the very first connection cannot be opened, unless `fail_fast_at_start` is off.
        """
        try:
            while not self._stop.is_set():
                try:
                    self._live()
                except _DroppedError as drop:
                    if self._subscribed:
                        self._on_lost(str(drop))
                    self._wait(str(drop))
        finally:
            self._enter(State.STOPPED, "")

    def _live(self) -> None:
        """One connection, from its beginning to the stop event. Raises _DroppedError at a drop."""
        self._crowded_until = -math.inf
        self._called_slow = False
        self.acknowledged = 0
        self._subscribed = False
        self._enter(State.CONNECTING, f"to {self._safe(redact_url(self._url))}")
        socket = self._open()
        if socket is None:
            return
        self.connections += 1
        socket.settimeout(self._poll)
        try:
            if self._authenticate(socket):
                self._subscribe(socket)
                self._drain(socket)
        finally:
            with suppress(*CONNECTION_ERRORS):
                socket.send_close()
            socket.shutdown()

    def _open(self) -> FeedSocket | None:
        try:
            return open_socket(self._url, self._answer_timeout, self._stop)
        except CONNECTION_ERRORS as error:
            reason = describe(error)
        if self._fail_fast and not self.connections:
            raise FeedUnreachableError(
                f"No feed at {self._safe(redact_url(self._url))}: {reason}. "
                "Check TICKSTOCK_FEED_URL and the network."
            )
        raise _DroppedError(f"cannot connect: {reason}")

    def _authenticate(self, socket: FeedSocket) -> bool:
        """Greeting and authentication. False if stopped meanwhile."""
        self._enter(State.AUTHENTICATING, "")
        if not self._await(socket, StatusKind.CONNECTED, "greeting"):
            return False
        with self._patient(socket):
            socket.send(protocol.auth_message(self._key))
        return self._await(socket, StatusKind.AUTH_SUCCESS, "answer to the authentication")

    def _await(self, socket: FeedSocket, wanted: StatusKind, what: str) -> bool:
        """Read until the wanted status arrives. False if stopped, _DroppedError if it is late."""
        deadline = time.monotonic() + self._answer_timeout
        for data in self._frames(socket):
            if data is not None:
                received_at = datetime.now(UTC)
                frame = parse_frame(data, received_at)
                if frame.has_data:
                    self._hand_over(data, received_at)
                if wanted in self._judge(frame.statuses):
                    return True
            if time.monotonic() > deadline:
                raise _DroppedError(f"no {what} within {self._answer_timeout:g} s")
        return False

    def _subscribe(self, socket: FeedSocket) -> None:
        self._take_wanted()
        # Before it is sent: what comes by it must come after this.
        self._subscribed = True
        self._on_subscribed(self._symbols)
        with self._patient(socket):
            for message in protocol.subscribe_messages(self._topics):
                socket.send(message)
        self._enter(State.STREAMING, f"{len(self._topics)} topics asked for")

    def _resubscribe(self, socket: FeedSocket) -> None:
        """What was subscribed and is wanted no more, what is wanted and was not subscribed."""
        before = self._topics
        self._take_wanted()
        unwanted = [topic for topic in before if topic not in set(self._topics)]
        new = [topic for topic in self._topics if topic not in set(before)]
        if not unwanted and not new:
            return
        self._on_subscribed(self._symbols)
        with self._patient(socket):
            for message in protocol.unsubscribe_messages(unwanted):
                socket.send(message)
            for message in protocol.subscribe_messages(new):
                socket.send(message)
        log.info("feed: %d topics more, %d fewer", len(new), len(unwanted))

    def _topics_of(self, symbols: Sequence[str]) -> list[str]:
        return [t for channel in self._channels for t in protocol.topics(symbols, channel)]

    def _take_wanted(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._symbols = wanted
            self._topics = self._topics_of(wanted)

    def _drain(self, socket: FeedSocket) -> None:
        """Hand over every frame until stopped. Nothing here may take long, or parse data."""
        flowing = False
        heard = time.monotonic()
        patience = heard + self._answer_timeout
        for data in self._frames(socket):
            if self._wanted is not None:
                self._resubscribe(socket)
            now = time.monotonic()
            if now > patience:
                patience = math.inf
                self._report_acknowledgements()
            if data is not None:
                received_at = datetime.now(UTC)
                self._hand_over(data, received_at)
                if b'"status"' in data:
                    self._judge(parse_frame(data, received_at).statuses)
                if any(mark in data for mark in self._data_marks):
                    heard = now
                    if not flowing:
                        # Not before: a crowded feed acknowledges everything and then cuts the connection.
                        flowing = True
                        self._backoff.reset()
                        self._crowded_backoff.reset()
                    continue
            # What is no data breaks no silence.
            self._check_silence(now - heard)

    def _check_silence(self, silent: float) -> None:
        patience = self._patience()
        if patience is not None and silent > patience:
            raise _DroppedError(
                f"silent: no data for {silent:.0f} s, in a regular session, though pings are answered"
            )

    def _hand_over(self, data: bytes, received_at: datetime) -> None:
        self._on_frame(data, received_at)
        self.frames += 1
        self.bytes += len(data)

    def _frames(self, socket: FeedSocket) -> Iterator[bytes | None]:
        """What the feed sends, and None after a moment's silence and after a ping or pong, until stopped.

        Raises _DroppedError when the feed closes, or answers no ping: a half-open socket.
        """
        pinged = math.inf
        while not self._stop.is_set():
            try:
                opcode, data = socket.recv_data(control_frame=True)
            except WebSocketTimeoutException:
                pinged = self._check_pulse(socket, pinged)
                yield None
                continue
            except CONNECTION_ERRORS as error:
                raise _DroppedError(self._breaking(describe(error))) from None
            if opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
                yield data
            elif opcode == ABNF.OPCODE_CLOSE:
                raise _DroppedError(self._closing(data))
            else:
                yield None  # else one who pings without a pause would hide that nothing else comes

    def _check_pulse(self, socket: FeedSocket, pinged: float) -> float:
        """In a silence: ping when it is long. When the last ping was sent that nothing followed."""
        now = time.monotonic()
        silent = now - socket.heard
        if socket.heard > pinged:
            pinged = math.inf
        if now - pinged >= self._ping_timeout:
            raise _DroppedError(f"dead: silent for {silent:.1f} s, and no answer to a ping")
        if pinged == math.inf and silent >= self._ping_after:
            with suppress(*CONNECTION_ERRORS):  # the next read will tell
                socket.ping()
            return now
        return pinged

    def _closing(self, data: bytes) -> str:
        code = int.from_bytes(data[:2]) if len(data) >= 2 else None
        reason = data[2:].decode("utf-8", "replace")
        if "maximum number of" in reason.lower():
            self._note_crowd()
        bare = code == _POLICY_VIOLATION and not reason and self._subscribed
        slow = self._called_slow or (bare and not self._is_crowded())
        if slow and "slow consumer" not in reason.lower():
            reason = f"{reason} (slow consumer)".lstrip()
        if "slow consumer" in reason.lower() or code == _INTERNAL_ERROR:
            self._count_slow_cut()
        return f"closed by the feed: {code or 'no code'} {self._safe(reason)}".rstrip()

    def _breaking(self, why: str) -> str:
        """The connection ended without a closing handshake, as this feed does it, maybe after a word."""
        if not self._called_slow:
            return f"connection lost: {why}"
        self._count_slow_cut()
        return f"connection lost: {why}, after it called us a slow consumer"

    def _count_slow_cut(self) -> None:
        self.slow_cuts += 1
        log.warning(
            "feed: it cuts us off as a slow consumer, %d times so far: what it sends is not taken fast "
            "enough. Give this machine less to do, or subscribe to fewer symbols.",
            self.slow_cuts,
        )

    def _judge(self, statuses: list[Status]) -> set[StatusKind]:
        """Act on statuses, and say which kinds there were."""
        kinds = set()
        for status in statuses:
            kind = protocol.classify(status)
            kinds.add(kind)
            said = self._safe(f"{status.status}: {status.message}")
            if kind in _FINAL:
                raise FeedRefusedError(self._refusal(kind, said))
            if kind is StatusKind.AUTH_TIMEOUT:
                raise _DroppedError(f"the feed waited in vain for the authentication ({said})")
            if kind is StatusKind.MAX_CONNECTIONS:
                self._note_crowd()
            elif kind is StatusKind.SLOW_CONSUMER:
                self._called_slow = True
            elif kind is StatusKind.SUBSCRIBED:
                self.acknowledged += 1
            elif kind is StatusKind.OTHER:
                log.warning("feed: it says %s", said)
        return kinds

    def _note_crowd(self) -> None:
        # The feed is about to close a connection of this key, this one or the other client's.
        self._crowded_until = time.monotonic() + self._answer_timeout

    def _is_crowded(self) -> bool:
        return time.monotonic() < self._crowded_until

    def _refusal(self, kind: StatusKind, said: str) -> str:
        more = len(self._topics) - 3
        names = ", ".join(self._topics[:3]) + (f" and {more} more" if more > 0 else "")
        text = _FINAL[kind].format(said=said, topics=self._safe(names))
        return f"The feed at {self._safe(redact_url(self._url))} {text}"

    def _report_acknowledgements(self) -> None:
        wanted = len(self._topics)
        if self.acknowledged < wanted:
            log.warning("feed: it acknowledged %d of %d topics", self.acknowledged, wanted)

    def _wait(self, reason: str) -> None:
        if self._stop.is_set():
            return
        backoff = self._backoff
        if self._is_crowded():
            backoff = self._crowded_backoff
            reason = f"another client uses this API key ({reason})"
        self.drops.append(Drop(datetime.now(UTC), reason))
        self.drop_count += 1
        seconds = backoff.next()
        self._enter(State.WAITING, f"{seconds:.1f} s before the next try; {reason}")
        self._stop.wait(seconds)

    def _enter(self, state: State, detail: str) -> None:
        self.state = state
        level = logging.WARNING if state is State.WAITING else logging.INFO
        log.log(level, "feed: %s", f"{state} {detail}".rstrip())

    def _safe(self, text: str) -> str:
        """Foreign text for a log, a message or the ledger: one line of ASCII, not long, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        line = re.sub(r"\s+", " ", text).encode("ascii", "backslashreplace").decode()
        # No terminal shall obey it, and PostgreSQL's text holds no NUL.
        return re.sub("[^ -~]", lambda found: f"\\x{ord(found[0]):02x}", line)[:200]

    @contextmanager
    def _patient(self, socket: FeedSocket) -> Iterator[None]:
        """For sending: longer than a poll, and a failure is left for the next read to explain.

        The feed may have hung up after saying why; that status is still there to be read.
        """
        socket.settimeout(self._answer_timeout)
        with suppress(*CONNECTION_ERRORS):
            yield
        socket.settimeout(self._poll)
