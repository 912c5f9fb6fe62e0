"""A real WebSocket server that does to a client what a test's script says, one script a connection.

It is built on the sans-I/O half of `websockets`, since a faithful feed must also be able to
misbehave: to drop TCP without a close handshake, to leave pings unanswered, to stop mid-frame.
"""

import json
import logging
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event
from websockets.server import ServerProtocol

DEADLINE = 10.0
"""Seconds after which anything that a test waits for has failed to happen."""

CONNECTED = ("connected", "Connected Successfully")
AUTHENTICATED = ("auth_success", "authenticated")

_SILENT = logging.Logger("scripted server", logging.CRITICAL)  # what it logs holds the key

Script = Callable[["Peer"], None]


class ClientLeftError(AssertionError):
    """The client ended its connection, and the script has something for it yet."""


class Peer:
    """One client that connected, seen from the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.pings = 0
        """Pings received, answered or not."""
        self._sock = sock
        self._protocol = ServerProtocol(logger=_SILENT)
        self._gone = False
        self._inbox: deque[Event] = deque()
        request = next(self._events(), None)
        if request is None:
            raise ClientLeftError("the client left before its handshake")
        assert isinstance(request, Request)
        self._protocol.send_response(self._protocol.accept(request))
        self._flush()

    def status(self, *statuses: tuple[str, str]) -> None:
        """Send statuses, in one frame."""
        self.send([{"ev": "status", "status": name, "message": said} for name, said in statuses])

    def send(self, events: list[dict[str, Any]]) -> None:
        self.text(json.dumps(events).encode())

    def text(self, data: bytes) -> None:
        with self._to_a_client():
            self._protocol.send_text(data)
            self._flush()

    def fragments(self, *parts: bytes) -> None:
        """Send one message in several frames."""
        with self._to_a_client():
            self._protocol.send_text(parts[0], fin=False)
            for part in parts[1:]:
                self._protocol.send_continuation(part, fin=part is parts[-1])
            self._flush()

    def wire(self, data: bytes) -> None:
        """Send bytes as they are, frames or parts of frames."""
        self._sock.sendall(data)

    def expect(self, action: str) -> str:
        """Wait for the client's next message, of this action, and return its params."""
        for event in self._events():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                message = json.loads(bytes(event.data))
                assert message["action"] == action
                return str(message["params"])
        raise ClientLeftError(f"the client left instead of sending {action}")

    def log_in(self) -> str:
        """Greet and authenticate whatever key; returns the key."""
        self.status(CONNECTED)
        key = self.expect("auth")
        self.status(AUTHENTICATED)
        return key

    def serve(self) -> list[str]:
        """Log in and acknowledge one subscribe message; returns its topics."""
        self.log_in()
        topics = self.expect("subscribe").split(",")
        self.status(*(("success", f"subscribed to: {topic}") for topic in topics))
        return topics

    def ping(self, payload: bytes) -> None:
        """Send a ping, and wait for its pong."""
        with self._to_a_client():
            self._protocol.send_ping(payload)
            self._flush()
        for event in self._events():
            if isinstance(event, Frame) and event.opcode is Opcode.PONG:
                assert bytes(event.data) == payload
                return
        raise ClientLeftError("the client left instead of answering a ping")

    def await_pings(self, count: int, *, answer: bool = True) -> None:
        """Wait for `count` pings of the client."""
        wanted = self.pings + count
        for _ in self._events(answer=answer):
            if self.pings >= wanted:
                return
        raise AssertionError(f"the client left after {self.pings} pings")

    def stay(self) -> None:
        """Answer pings until the client leaves."""
        for _ in self._events():
            pass

    def play_dead(self) -> None:
        """Answer nothing until the client leaves."""
        for _ in self._events(answer=False):
            pass

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and hang up without waiting for the answer."""
        self._protocol.send_close(code, reason)
        self._flush()
        self.hang_up()

    def hang_up(self) -> None:
        """End the TCP connection without a close frame."""
        with suppress(OSError):  # the client may have been faster
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Tear the TCP connection down: the client sees a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    @contextmanager
    def _to_a_client(self) -> Iterator[None]:
        try:
            yield
        except (InvalidState, ConnectionError) as error:
            raise ClientLeftError(f"the client left: {error}") from error

    def _events(self, *, answer: bool = True) -> Iterator[Event]:
        """What the client sends, until it leaves."""
        while True:
            if answer and not self._gone:
                with suppress(ConnectionError):  # the client left: the next read will tell
                    self._flush()
            self._inbox.extend(self._protocol.events_received())
            while self._inbox:
                event = self._inbox.popleft()
                if isinstance(event, Frame) and event.opcode is Opcode.PING:
                    self.pings += 1
                yield event
            if self._gone:
                return
            try:
                data = self._sock.recv(65536)
            except ConnectionError:
                data = b""
            if data:
                self._protocol.receive_data(data)
            else:
                self._gone = True

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)


class ScriptedServer:
    """A server on a free port of 127.0.0.1; the last script serves all further connections.

    As a context manager it ends with the failure of the first script that failed.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.connections = 0
        """TCP connections accepted."""
        self.handshake_failures = 0
        """TLS handshakes that the client broke off."""
        self._scripts = scripts
        self._tls = tls
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{self.port}/stocks"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop_listening()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a script does not end"
        if self._errors:
            raise self._errors[0]

    def stop_listening(self) -> None:
        """From now on, connections are refused. Those that exist go on."""
        if self._acceptor.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._acceptor.join(DEADLINE)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            thread = threading.Thread(target=self._play, args=(sock, script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, sock: socket.socket, script: Script) -> None:
        with sock:
            sock.settimeout(DEADLINE)
            # Else a reset would discard what was sent just before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
            except (ssl.SSLError, ConnectionError):
                self.handshake_failures += 1
                return
            with sock:
                try:
                    script(Peer(sock))
                except BaseException as error:
                    self._errors.append(error)
