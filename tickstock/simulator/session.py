"""One client's connection: the vendor's handshake and commands, and what waits to be sent to it."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from tickstock.simulator.events import Event, Frame, status
from tickstock.simulator.faults import Faults

_log = logging.getLogger(__name__)

EVERY_SYMBOL = "*"
CHANNELS = ("AM", "A", "T")
"""Bars of minutes, of seconds, and trades: what the simulator has."""
OTHER_CHANNELS = frozenset({"Q", "LULD", "NOI", "FMV"})
"""The vendor's other topics for stocks, which no plan of this simulator includes."""

_LETTING_GO = 5.0
"""Seconds that a client which was let go has to notice."""


@dataclass(frozen=True)
class Terms:
    """What holds for every client. `keys` None accepts any key; times are seconds."""

    keys: Collection[str] | None
    channels: Collection[str]
    """Those of the plan; others are not authorized."""
    auth_timeout: float
    queue_events: int
    stall_timeout: float


class _Command(NamedTuple):
    action: str
    params: str


class _Ending(NamedTuple):
    """Stands in the queue where a fault ends the connection."""

    fault: str


class Session:
    """Speaks to one client, from the greeting to the end.

    Everything after the authentication goes through one queue in order, so a client gets no bar
    before its subscription is acknowledged and none after the end of it is.
    """

    def __init__(
        self,
        connection: ServerConnection,
        terms: Terms,
        *,
        number: int,
        faults: Faults,
        on_authenticated: Callable[["Session"], None],
        on_subscriptions: Callable[[], None],
        on_handed: Callable[[Frame], None],
    ) -> None:
        self.number = number
        """Counts the connections of a simulator."""
        self.topics: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
        """The subscribed symbols of each channel, `*` for all of them."""
        self.key: str | None = None
        """The key it authenticated with, as long as the connection counts as one of that key's."""
        self.excess = False
        """One connection too many for its key: it is told once it has subscribed."""
        self._connection = connection
        self._terms = terms
        self._faults = faults
        self._on_authenticated = on_authenticated
        self._on_subscriptions = on_subscriptions
        self._on_handed = on_handed
        self._queue: asyncio.Queue[Frame | _Ending] = asyncio.Queue()
        self._waiting_events = 0
        self._frames_handed = 0
        self._all_handed = asyncio.Event()
        self._all_handed.set()
        self._gone = False
        self._mute = False
        self._writer: asyncio.Task[None] | None = None
        self._cut: asyncio.Task[None] | None = None

    @property
    def subscribed(self) -> bool:
        """Whether it wants anything at all."""
        return any(self.topics.values())

    def whole_channels(self) -> frozenset[str] | None:
        """The channels it wants for all symbols; None if it wants any for some symbols only."""
        wanted = {channel: symbols for channel, symbols in self.topics.items() if symbols}
        if all(EVERY_SYMBOL in symbols for symbols in wanted.values()):
            return frozenset(wanted)
        return None

    def wants(self, event: Event) -> bool:
        """Whether it is subscribed to this."""
        symbols = self.topics[event.fields["ev"]]
        return event.fields["sym"] in symbols or EVERY_SYMBOL in symbols

    async def run(self) -> None:
        """Returns when the client is gone; raises nothing for anything a client may do."""
        with suppress(ConnectionClosed):
            await self._say(status("connected", "Connected Successfully"))
            if await self._authenticate():
                await self._converse()

    def offer(self, frames: Iterable[Frame]) -> None:
        """Queue a minute's frames; a client with too many events waiting is cut instead."""
        if self._gone:
            return
        if self._waiting_events > self._terms.queue_events:
            self.cut()
            return
        for frame in frames:
            self._enqueue(frame)

    def end(self, fault: str) -> None:
        """Let a fault end the connection after what has been offered before."""
        if not self._gone:
            self._enqueue(_Ending(fault))

    async def flushed(self) -> None:
        """Return once all that was queued is in the socket. A client that stalls is cut."""
        while not self._all_handed.is_set():
            before = self._frames_handed
            try:
                async with asyncio.timeout(self._terms.stall_timeout):
                    await self._all_handed.wait()
            except TimeoutError:
                if self._frames_handed == before:
                    self.cut()

    def cut(self) -> None:
        """Let a slow consumer go as the vendor does: what waits for it is lost."""
        if self._gone:
            return
        _log.warning(
            "client %s is too slow, %d events waiting: cut off",
            self._connection.remote_address,
            self._waiting_events,
        )
        self._dismiss(_SLOW, CloseCode.POLICY_VIOLATION, "slow consumer")

    def suffer(self, fault: str) -> None:
        """Let a fault of the connection happen now."""
        if self._gone:
            return
        _log.info("client %s suffers: %s", self._connection.remote_address, fault)
        match fault:
            case "drop":
                self._leave()
                self.abort()
            case "silence" | "half_open":
                self._mute, key = True, self.key
                self._leave()
                if fault == "silence":
                    self.key = key  # as long as the client does not hang up
                else:
                    self._connection.transport.pause_reading()
                    if self._connection.keepalive_task is not None:
                        self._connection.keepalive_task.cancel()
            case "slow_consumer":
                self._dismiss(_SLOW, CloseCode.POLICY_VIOLATION, "slow consumer")
            case "slow_consumer_1011":
                self._dismiss(None, CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            case _:
                self._dismiss(_CROWDED, CloseCode.POLICY_VIOLATION, _CROWDED["message"][:120])

    def _dismiss(self, last_words: dict[str, str] | None, code: CloseCode, reason: str) -> None:
        self._leave()
        if last_words:
            self._push(last_words)
        self._cut = asyncio.create_task(self._connection.close(code, reason), name="simulator-cut")

    def abort(self) -> None:
        """Drop the TCP connection now."""
        self._connection.transport.abort()

    async def _authenticate(self) -> bool:
        try:
            async with asyncio.timeout(self._terms.auth_timeout):
                refusal = await self._first_auth()
        except TimeoutError:
            refusal = status("auth_timeout", "No authentication request received.")
        if refusal:
            await self._let_go(refusal)
            return False
        await self._say(_AUTHENTICATED)
        self._on_authenticated(self)
        return True

    async def _first_auth(self) -> dict[str, str] | None:
        """The refusal, or None when the key is right. Other commands are told to wait."""
        while True:
            command = _parse(await self._connection.recv())
            if command is None:
                await self._say(_MALFORMED)
            elif command.action == "auth":
                if not self._accepts(command.params):
                    return _WRONG_KEY
                self.key = command.params
                return None
            else:
                await self._say(_AUTH_REQUIRED)

    def _accepts(self, key: str) -> bool:
        return self._terms.keys is None or key in self._terms.keys

    async def _converse(self) -> None:
        self._writer = asyncio.create_task(self._write(), name="simulator-writer")
        try:
            async for message in self._connection:
                if self._mute:
                    continue
                if self._gone:
                    return
                command = _parse(message)
                if command and command.action == "auth" and not self._accepts(command.params):
                    await self._let_go(_WRONG_KEY)
                    return
                self._reply(_MALFORMED if command is None else self._obey(command))
                if command and command.action == "subscribe":
                    self._refuse_excess()
        finally:
            self._leave()
            if self._cut is not None:
                await self._cut

    def _obey(self, command: _Command) -> Sequence[dict[str, str]] | dict[str, str]:
        match command.action:
            case "auth":
                return _AUTHENTICATED
            case "subscribe":
                answers = self._change(command.params, "subscribed to", set.add)
            case "unsubscribe":
                answers = self._change(command.params, "unsubscribed to", set.discard)
            case _:
                return status("error", f"unknown action: {command.action[:40]}")
        self._on_subscriptions()
        return answers

    def _change(
        self, params: str, done: str, change: Callable[[set[str], str], None]
    ) -> Sequence[dict[str, str]]:
        """Change subscriptions; one answer for each topic, but none for an unknown one."""
        answers = []
        for topic in params.split(","):
            channel, _, symbol = topic.strip().partition(".")
            if channel in self._terms.channels and symbol:
                change(self.topics[channel], symbol)
                answers.append(status("success", f"{done}: {channel}.{symbol}"))
            elif (channel in CHANNELS or channel in OTHER_CHANNELS) and symbol:
                answers.append(status("error", "not authorized"))
        return answers

    def _refuse_excess(self) -> None:
        """After the acknowledgement, as has been reported: one connection too many."""
        if self.excess or self._faults.strikes("max_connections_new", self.number):
            self.end("max_connections_new")

    def _reply(self, answers: Sequence[dict[str, str]] | dict[str, str]) -> None:
        events = [answers] if isinstance(answers, dict) else answers
        if events:
            self.offer([Frame(orjson.dumps(events))])

    def _enqueue(self, item: Frame | _Ending) -> None:
        self._waiting_events += _weight(item)
        self._all_handed.clear()
        self._queue.put_nowait(item)

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                item = await self._queue.get()
                if self._connection.state is not State.OPEN:
                    break
                if isinstance(item, _Ending):
                    self.suffer(item.fault)
                    return
                # Told before the client can have it: who compares must not see a bar too many.
                self._on_handed(item)
                await self._connection.send(item.payload, text=True)
                self._frames_handed += 1
                self._waiting_events -= _weight(item)
                if self._queue.empty():
                    self._all_handed.set()

    def _leave(self) -> None:
        """No more bars for this client, and nobody shall wait for it."""
        self._gone = True
        self.key = None
        for symbols in self.topics.values():
            symbols.clear()
        self._on_subscriptions()
        self._all_handed.set()
        if self._writer is not None:
            self._writer.cancel()

    async def _say(self, event: dict[str, str]) -> None:
        await self._connection.send(orjson.dumps([event]), text=True)

    def _push(self, event: dict[str, str]) -> None:
        """Write without waiting for room, as the last words to a client that may not read."""
        broadcast([self._connection], orjson.dumps([event]).decode())

    async def _let_go(self, event: dict[str, str]) -> None:
        """Say why, then end the TCP connection without a closing handshake, as the vendor does."""
        self._leave()
        self._push(event)
        self._connection.transport.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LETTING_GO):
                await self._connection.wait_closed()
        self.abort()


_AUTHENTICATED = status("auth_success", "authenticated")
_WRONG_KEY = status("auth_failed", "authentication failed")
_AUTH_REQUIRED = status("auth_required", "authenticate first")
_MALFORMED = status("error", 'not a command: send {"action":"…","params":"…"}')
_SLOW = status("slow_consumer", "Connection closed: slow consumer")
_CROWDED = status(
    "max_connections",
    "Maximum number of websocket connections exceeded. "
    "You have reached the connection limit for your account.",
)


def _weight(item: Frame | _Ending) -> int:
    """Events in a frame; any other message counts as one."""
    return (item.events if isinstance(item, Frame) else 0) or 1


def _parse(message: str | bytes) -> _Command | None:
    try:
        command = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(command, dict):
        return None
    action, params = command.get("action"), command.get("params")
    if isinstance(action, str) and isinstance(params, str):
        return _Command(action, params)
    return None
