"""The simulator: a local server of the vendor's stocks WebSocket, played from a market."""

import asyncio
import errno
import logging
import math
import threading
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from tickstock.bars import Bar
from tickstock.errors import TickstockError
from tickstock.feed.minutes import regular_hours
from tickstock.simulator.events import Encoder, Event, Frame, frames
from tickstock.simulator.faults import CONNECTION_FAULTS, Faults, check
from tickstock.simulator.history import History
from tickstock.simulator.market import NEW_YORK, Market, Minute
from tickstock.simulator.rest import RestApi
from tickstock.simulator.session import CHANNELS, EVERY_SYMBOL, Session, Terms
from tickstock.simulator.tape import MINUTE_MS, Tape

_log = logging.getLogger(__name__)

PATH = "/stocks"

_LARGEST_LAG = 1.0
"""Seconds by which the market clock may be behind and still catch up."""
_CLOSING = 1.0
"""Seconds for the closing handshakes when the simulator stops."""
_BREATH = 0.2
"""Seconds of real time from one look at the tape to the next, at least."""


class Simulator:
    """Serves a market on `ws://HOST:PORT/stocks`, and REST beside it, from a thread of its own.

    The protocol is the vendor's: greeting, `auth`, `subscribe`, `unsubscribe`, events in JSON arrays,
    and its refusals. Chosen where its documentation leaves room: a command before `auth` is answered
    `auth_required` and the connection stays until `auth_timeout`; a text that is no command is
    answered by a status `error`; other paths are 404.

    Channels: `AM`, and `A` and `T`, whose seconds and trades make the same bars. `channels` are those
    of the plan; other known topics are "not authorized".

    The market clock: a minute takes 60 / `speed` seconds. Trades and seconds are sent as it passes,
    its bars when it ends. Closed hours take no time. A client gets what happens while it is
    subscribed. One with more than `queue_events` events waiting when a minute ends is cut off (status
    `slow_consumer`, close code 1008), and no other client notices. With `speed` infinite or 0 nothing
    sets the pace but the sockets: the next minute begins when all clients have taken the last.
    Whenever something waits for the clients (this, `settle()`, the end of the market), one that takes
    nothing for `stall_timeout` seconds is cut off.

    With `closes` the market's clock is at New York's midnight once the market has ended: what there is
    is final then. Else it stands where it ended.
    With `wait_for_subscriber` the clock stands still until the first subscription, and at infinite
    speed whenever there is none.

    What goes wrong on purpose is said by `faults`, and by `inject()`. `max_connections`: so many
    connections of a key; None sets no limit. One too many costs the `new` one, after its subscription
    was acknowledged, or the `old` one, as `crowded_out` says: both have been reported of the vendor.

    `keys`: the API keys accepted; None accepts any. `frame_events`: events in a message, at most.
    `port` 0 takes a free one. `remember` False leaves `sent` empty: it grows without end otherwise.
    `splits`: see `RestApi`. `seed` decides the tape.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        keys: Collection[str] | None = ("simulator",),
        speed: float = 1.0,
        frame_events: int = 100,
        auth_timeout: float = 10.0,
        wait_for_subscriber: bool = True,
        queue_events: int = 500_000,
        stall_timeout: float = 10.0,
        remember: bool = True,
        channels: Collection[str] = CHANNELS,
        faults: Faults | None = None,
        max_connections: int | None = None,
        crowded_out: Literal["new", "old"] = "new",
        splits: Mapping[str, int] | None = None,
        seed: int = 0,
        closes: bool = False,
    ) -> None:
        if not speed >= 0:
            raise TickstockError(f"speed {speed}: give a positive number, or 0 for no limit")
        if frame_events < 1:
            raise TickstockError(f"{frame_events} events a frame: give at least 1")
        self.sent: dict[tuple[str, datetime], Bar] = {}
        """Each bar, by symbol and start, that was handed to a subscriber's socket, as it was last.

        As the wire carries it, so without `trades`. The truth, as long as no fault strikes; else see
        `truth()`. The simulator's thread writes it: look at it as a whole after `finished`, `stop()`,
        or `pause()` and `settle()`.
        """
        self._closes = closes
        self.events_sent = 0
        """Events of the market handed to sockets, counted once for each client."""
        self.faults = faults or Faults()
        """What goes wrong, and how often it did."""
        self.clock: datetime | None = None
        """Start (UTC) of the last minute that was sent."""
        self.error: Exception | None = None
        """Why the market ended early, if it failed."""
        self.finished = threading.Event()
        """Set once the market has ended and all of it is in the sockets (or has failed)."""
        self._market = market
        self._host, self._wanted_port = host, port
        accepted = keys if keys is None else frozenset([keys] if isinstance(keys, str) else keys)
        self._terms = Terms(accepted, channels, auth_timeout, queue_events, stall_timeout)
        self._history = History()
        self._rest = RestApi(
            self._history,
            symbols=market.symbols,
            keys=accepted,
            faults=self.faults,
            splits=splits or {},
        )
        self._max_connections = max_connections
        self._crowded_out = crowded_out
        self._seed = seed
        self._connections = 0
        self._frame_events = frame_events
        self._remember = remember
        self._unlimited = speed == 0 or math.isinf(speed)
        self._minute_seconds = 0.0 if self._unlimited else 60.0 / speed
        self._wait_for_subscriber = wait_for_subscriber
        self._sessions: set[Session] = set()
        self._address: Future[tuple[str, int]] = Future()
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        # These belong to the thread's event loop once it runs.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._wanted = asyncio.Event()
        if not wait_for_subscriber:
            self._wanted.set()
        self._deadline = 0.0

    def start(self) -> None:
        """Listen, and let the market begin. A simulator is started once.

        Raises TickstockError when the address cannot be had.
        """
        self._thread.start()
        self._address.result()
        _log.info("simulator listens on %s", self.url)

    def stop(self) -> None:
        """Close all connections, free the port, end the thread. May be called again."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has just ended
                loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.ident is not None:
            self._thread.join()

    def pause(self) -> None:
        """Stop the market clock: when this returns, no further minute will be sent."""
        if not self._call(self._set_running(False)):
            self._running.clear()

    def resume(self) -> None:
        """Let the market clock go on where it stood."""
        if not self._call(self._set_running(True)):
            self._running.set()

    def settle(self, timeout: float = 10.0) -> bool:
        """Wait until every minute sent so far is in its clients' sockets; False if it was not."""
        try:
            self._call(self._flush(), timeout)
        except TimeoutError:
            return False
        return True

    def inject(self, fault: str) -> None:
        """Let a fault happen: one of the connection to every client now, another one at the next
        opportunity. Raises TickstockError for an unknown one.
        """
        check(fault)
        if fault not in CONNECTION_FAULTS:
            self.faults.order(fault)
        elif not self._call(self._end_all(fault)):
            raise RuntimeError("the simulator is not running")

    def truth(self) -> dict[tuple[str, datetime], Bar]:
        """Every bar of the minutes that are over, by symbol and start, whoever was told of it.

        As the market has them, with `trades` where it knows them. Ask when the clock stands still.
        """
        return self._history.truth()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where a client connects."""
        host, port = self._where()
        return f"ws://{f'[{host}]' if ':' in host else host}:{port}{PATH}"

    @property
    def rest_url(self) -> str:
        """Where the REST API of the same market is."""
        return self.url.removesuffix(PATH).replace("ws://", "http://")

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._where()[1]

    @property
    def subscribers(self) -> int:
        """Clients subscribed to anything at the moment."""
        return sum(session.subscribed for session in self._sessions.copy())

    @property
    def requests(self) -> int:
        """REST requests so far."""
        return self._rest.requests

    def _where(self) -> tuple[str, int]:
        if not self._address.done():
            raise RuntimeError("the simulator has no address before start()")
        return self._address.result()

    # From here on, everything runs in the simulator's thread, except `_call`.

    def _call(self, coroutine: Coroutine[Any, Any, None], timeout: float | None = None) -> bool:
        """Run it in the thread's event loop; False when there is none (yet, or any more)."""
        loop = self._loop
        if loop is None or not self._thread.is_alive():
            coroutine.close()
            return False
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise
        return True

    async def _set_running(self, running: bool) -> None:
        if running:
            self._running.set()
        else:
            self._running.clear()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._address.done():
                raise
            # `start()` waits for this, whatever went wrong.
            self._address.set_exception(self._unavailable(error))
        finally:
            self._loop = None

    async def _serve(self) -> None:
        async with serve(
            self._meet,
            self._host,
            self._wanted_port,
            process_request=self._route,
            compression=None,
            close_timeout=5.0,
            logger=_server_logger(),
        ) as server:
            self._loop = asyncio.get_running_loop()
            self._address.set_result(_reachable(server))
            clock = asyncio.create_task(self._play(), name="simulator-clock")
            await self._stopping.wait()
            clock.cancel()
            await self._close(server)

    async def _close(self, server: Server) -> None:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await server.wait_closed()
        for session in self._sessions:
            session.abort()

    async def _meet(self, connection: ServerConnection) -> None:
        self._connections += 1
        session = Session(
            connection,
            self._terms,
            number=self._connections,
            faults=self.faults,
            on_authenticated=self._authenticated,
            on_subscriptions=self._subscriptions_changed,
            on_handed=self._handed,
        )
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)

    def _subscriptions_changed(self) -> None:
        if any(session.subscribed for session in self._sessions):
            self._wanted.set()
        elif self._unlimited and self._wait_for_subscriber:
            self._wanted.clear()

    def _authenticated(self, newest: Session) -> None:
        """Look whether that is one connection too many for its key."""
        if self._max_connections is None:
            return
        same = sorted(
            (session for session in self._sessions if session.key == newest.key),
            key=lambda session: session.number,
        )
        excess = len(same) - self._max_connections
        if excess > 0 and self._crowded_out == "new":
            newest.excess = True
        elif excess > 0:
            for session in same[:excess]:
                session.suffer("max_connections_old")

    async def _end_all(self, fault: str) -> None:
        for session in tuple(self._sessions):
            self.faults.counts[fault] += 1
            session.suffer(fault)

    def _handed(self, frame: Frame) -> None:
        self.events_sent += frame.events
        if self._remember and frame.bars:
            self.sent.update(((bar.symbol, bar.ts), bar) for bar in frame.bars)

    async def _play(self) -> None:
        encoder = Encoder()
        minutes = self._market.minutes()
        self._deadline = asyncio.get_running_loop().time()
        try:
            # In a thread: a minute of a large market, or a file, takes its time.
            while minute := await asyncio.to_thread(_next, minutes):
                await self._pass(minute, encoder.encode(minute))
            self._send(self.faults.remains())
            await self._flush()
            if self.clock is not None and self._closes:
                # REST's clock goes on: the day is over, what there is now is final.
                self.clock = _midnight_after(self.clock)
        except Exception as error:
            _log.exception("the simulated market failed")
            self.error = error
        self.finished.set()

    async def _pass(self, minute: Minute, bars: Sequence[Event]) -> None:
        """Let a minute pass: its trades and seconds as they happen, its bars at its end."""
        tape = Tape(minute.bars, bars, seed=self._seed, regular=regular_hours(minute.ts))
        steps = 1 if self._unlimited else max(1, min(60, int(self._minute_seconds / _BREATH)))
        reached = 0
        for step in range(1, steps + 1):
            await self._wait(self._minute_seconds / steps)
            until = MINUTE_MS * step // steps
            ticks: list[Event] = []
            if wanted := self._wanted_ticks():
                ticks = await asyncio.to_thread(tape.ticks, reached, until, wanted)
            reached = until
            if step < steps and ticks:
                self._send(self.faults.disturb(ticks, last=False))
        self._history.add(minute.bars)
        self._send(self.faults.disturb([*ticks, *bars], last=True), minute.ts)
        self.clock = minute.ts
        if not self._unlimited:
            self._history.sort_in()

    def _wanted_ticks(self) -> dict[str, set[str] | None]:
        """The symbols of which somebody wants trades or seconds; None: all."""
        wanted: dict[str, set[str] | None] = {}
        for channel in ("T", "A"):
            symbols = set().union(*(session.topics[channel] for session in self._sessions))
            if symbols:
                wanted[channel] = None if EVERY_SYMBOL in symbols else symbols
        return wanted

    async def _wait(self, seconds: float) -> None:
        """Let so much of the market's time pass; at infinite speed, wait for the clients."""
        await self._permission()
        if self._unlimited:
            await self._flush()
        else:
            now = asyncio.get_running_loop().time()
            self._deadline = max(self._deadline + seconds, now - _LARGEST_LAG)
            await asyncio.sleep(max(0.0, self._deadline - now))
        await self._permission()

    async def _permission(self) -> None:
        """Return when the clock may go on. Time spent standing still is not caught up with."""
        while not (self._running.is_set() and self._wanted.is_set()):
            await self._running.wait()
            await self._wanted.wait()
            self._deadline = asyncio.get_running_loop().time()

    def _route(self, connection: ServerConnection, request: Request) -> Response | None:
        """REST and unknown paths are answered here; None goes on with the WebSocket."""
        if request.path.partition("?")[0].rstrip("/") == PATH:
            return None
        return self._rest.answer(request, self.clock) or connection.respond(
            HTTPStatus.NOT_FOUND,
            f"This simulator serves {PATH}, and REST below /v1, /v2 and /v3.\n",
        )

    def _send(self, events: Sequence[Event], minute: datetime | None = None) -> None:
        """Offer to each client what it wants of these, the last ones of `minute` if that is told."""
        shared: dict[frozenset[str], list[Frame]] = {}
        for session in tuple(self._sessions):
            channels = session.whole_channels()
            if channels is None:
                wanted = [event for event in events if session.wants(event)]
                self._offer(session, frames(wanted, self._frame_events), minute)
            elif channels:
                # Encoded once, however many clients want it.
                if channels not in shared:
                    some = [event for event in events if event.fields["ev"] in channels]
                    shared[channels] = list(frames(some, self._frame_events))
                self._offer(session, shared[channels], minute)

    def _offer(self, session: Session, made: Iterable[Frame], minute: datetime | None) -> None:
        """Offer frames to a client, with what goes wrong at the end of a minute."""
        if minute is None or not self.faults.active:
            session.offer(made)
            return
        occasion = (session.number, minute)
        pieces = list(made)
        if garbage := self.faults.garbage(*occasion):
            pieces.insert(int(self.faults.chance("where", *occasion) * (len(pieces) + 1)), garbage)
        if ending := self.faults.ends(*occasion):
            del pieces[int(self.faults.chance("when", *occasion) * (len(pieces) + 1)) :]
        session.offer(pieces)
        if ending:
            session.end(ending)

    async def _flush(self) -> None:
        for session in tuple(self._sessions):
            await session.flushed()

    def _unavailable(self, error: Exception) -> Exception:
        if not isinstance(error, OSError | OverflowError):
            return error
        where = f"port {self._wanted_port} on {self._host}"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return TickstockError(f"{where} is in use; choose another, or 0 for any that is free")
        cause = getattr(error, "strerror", None) or error
        return TickstockError(f"{where}: cannot listen there ({cause}); choose another")


def _midnight_after(ts: datetime) -> datetime:
    day = ts.astimezone(NEW_YORK).date() + timedelta(days=1)
    return datetime.combine(day, time(), NEW_YORK).astimezone(UTC)


def _next(minutes: Iterator[Minute]) -> Minute | None:
    return next(minutes, None)


def _reachable(server: Server) -> tuple[str, int]:
    """Host and port for a client on this machine."""
    host, port = next(iter(server.sockets)).getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def _server_logger() -> logging.Logger:
    """A client that does not speak WebSocket is not worth a traceback."""
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_no_handshake_failures)
    return logger


def _no_handshake_failures(record: logging.LogRecord) -> bool:
    return "opening handshake failed" not in record.getMessage()
