"""A real HTTP server that answers what a test says, one reply a request."""

import gzip
import json
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from .scripted_server import DEADLINE


class Reply(NamedTuple):
    """An answer. `framing`: how its end is known. `cut`: bytes of the body after which TCP ends."""

    status: int = 200
    content: Any = {}  # noqa: RUF012 (nobody changes it)
    headers: Mapping[str, str] = {}
    framing: str = "length"
    zipped: bool = False
    cut: int | None = None
    drip: bool = False
    """The body comes slowly: a byte every few milliseconds, until the client has left."""

    @property
    def body(self) -> bytes:
        """The body as it is sent; a content of bytes is sent as it is."""
        plain = self.content if type(self.content) is bytes else json.dumps(self.content).encode()
        return gzip.compress(plain) if self.zipped else plain


class Request(NamedTuple):
    at: float
    """By the monotonic clock."""
    path: str
    headers: Mapping[str, str]


class HttpServer:
    """A server on a free port of 127.0.0.1; the last reply answers all further requests."""

    def __init__(self, *replies: Reply, tls: ssl.SSLContext | None = None) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.connections = 0
        self.left = threading.Event()
        """Set once a client has left within an answer."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE)
        self._server.socket.close()

    def reply(self, path: str, number: int) -> Reply:  # noqa: ARG002 (others look at it)
        """What answers a request of this path, after `number` others."""
        return self.replies[min(number, len(self.replies) - 1)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                number = len(server.requests)
                server.requests.append(Request(time.monotonic(), self.path, dict(self.headers)))
                server._answer(self, server.reply(self.path, number))

        return Handler

    def _answer(self, to: BaseHTTPRequestHandler, reply: Reply) -> None:
        body = reply.body
        to.send_response(reply.status)
        for name, value in reply.headers.items():
            to.send_header(name, value)
        if reply.zipped:
            to.send_header("Content-Encoding", "gzip")
        if reply.framing == "length":
            to.send_header("Content-Length", str(len(body)))
        elif reply.framing == "chunked":
            to.send_header("Transfer-Encoding", "chunked")
        to.close_connection = reply.framing == "close" or reply.cut is not None
        to.end_headers()
        try:
            self._send(to, reply, body)
        except ConnectionError:
            to.close_connection = True
            self.left.set()

    def _send(self, to: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        part = body if reply.cut is None else body[: reply.cut]
        if reply.drip:
            while not self.left.wait(0.005):
                to.wfile.write(b" ")
        elif reply.framing == "chunked":
            to.wfile.write(b"%x\r\n" % len(body) + part)
            to.wfile.write(b"\r\n0\r\n\r\n" if reply.cut is None else b"")
        else:
            to.wfile.write(part)
