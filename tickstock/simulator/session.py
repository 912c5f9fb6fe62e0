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

from tickstock.bars import Bar
from tickstock.simulator.events import Frame, status

_log = logging.getLogger(__name__)

EVERY_SYMBOL = "*"
MINUTE_BARS = "AM"
OTHER_TOPICS = frozenset({"A", "T", "Q", "LULD", "NOI", "FMV"})
"""The vendor's other topics for stocks, which this simulator's plan does not include."""

_LETTING_GO = 5.0
"""Seconds that a client which was let go has to notice."""


@dataclass(frozen=True)
class Terms:
    """What holds for every client. `keys` None accepts any key; times are seconds."""

    keys: Collection[str] | None
    auth_timeout: float
    queue_events: int
    stall_timeout: float


class _Command(NamedTuple):
    action: str
    params: str


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
        on_subscriptions: Callable[[], None],
        on_handed: Callable[[Sequence[Bar]], None],
    ) -> None:
        self.symbols: set[str] = set()
        """The subscribed symbols, or `*` for all of them."""
        self._connection = connection
        self._terms = terms
        self._on_subscriptions = on_subscriptions
        self._on_handed = on_handed
        self._queue: asyncio.Queue[Frame] = asyncio.Queue()
        self._waiting_events = 0
        self._frames_handed = 0
        self._all_handed = asyncio.Event()
        self._all_handed.set()
        self._gone = False
        self._writer: asyncio.Task[None] | None = None
        self._cut: asyncio.Task[None] | None = None

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
        self._leave()
        reason = "slow consumer"
        self._push(status("slow_consumer", f"Connection closed: {reason}"))
        self._cut = asyncio.create_task(
            self._connection.close(CloseCode.POLICY_VIOLATION, reason), name="simulator-cut"
        )

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
        return True

    async def _first_auth(self) -> dict[str, str] | None:
        """The refusal, or None when the key is right. Other commands are told to wait."""
        while True:
            command = _parse(await self._connection.recv())
            if command is None:
                await self._say(_MALFORMED)
            elif command.action == "auth":
                return None if self._accepts(command.params) else _WRONG_KEY
            else:
                await self._say(_AUTH_REQUIRED)

    def _accepts(self, key: str) -> bool:
        return self._terms.keys is None or key in self._terms.keys

    async def _converse(self) -> None:
        self._writer = asyncio.create_task(self._write(), name="simulator-writer")
        try:
            async for message in self._connection:
                if self._gone:
                    return
                command = _parse(message)
                if command and command.action == "auth" and not self._accepts(command.params):
                    await self._let_go(_WRONG_KEY)
                    return
                self._reply(_MALFORMED if command is None else self._obey(command))
        finally:
            self._leave()
            if self._cut is not None:
                await self._cut

    def _obey(self, command: _Command) -> Sequence[dict[str, str]] | dict[str, str]:
        match command.action:
            case "auth":
                return _AUTHENTICATED
            case "subscribe":
                answers = self._change(command.params, "subscribed to", self.symbols.add)
            case "unsubscribe":
                answers = self._change(command.params, "unsubscribed to", self.symbols.discard)
            case _:
                return status("error", f"unknown action: {command.action[:40]}")
        self._on_subscriptions()
        return answers

    def _change(
        self, params: str, done: str, change: Callable[[str], None]
    ) -> Sequence[dict[str, str]]:
        """Change subscriptions; one answer for each topic, but none for an unknown one."""
        answers = []
        for topic in params.split(","):
            kind, _, symbol = topic.strip().partition(".")
            if kind == MINUTE_BARS and symbol:
                change(symbol)
                answers.append(status("success", f"{done}: {kind}.{symbol}"))
            elif kind in OTHER_TOPICS and symbol:
                answers.append(status("error", "not authorized"))
        return answers

    def _reply(self, answers: Sequence[dict[str, str]] | dict[str, str]) -> None:
        events = [answers] if isinstance(answers, dict) else answers
        if events:
            self.offer([Frame(orjson.dumps(events))])

    def _enqueue(self, frame: Frame) -> None:
        self._waiting_events += _weight(frame)
        self._all_handed.clear()
        self._queue.put_nowait(frame)

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                frame = await self._queue.get()
                if self._connection.state is not State.OPEN:
                    break
                # Told before the client can have it: who compares must not see a bar too many.
                self._on_handed(frame.bars)
                await self._connection.send(frame.payload, text=True)
                self._frames_handed += 1
                self._waiting_events -= _weight(frame)
                if self._queue.empty():
                    self._all_handed.set()

    def _leave(self) -> None:
        """No more bars for this client, and nobody shall wait for it."""
        self._gone = True
        self.symbols.clear()
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


def _weight(frame: Frame) -> int:
    """Events in a frame; a status message counts as one."""
    return len(frame.bars) or 1


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
