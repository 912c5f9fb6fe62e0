"""Opening a WebSocket: an address checked, an attempt that can be abandoned, a failure in words."""

import ipaddress
import re
import socket
import ssl
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import websocket
from websocket import WebSocketException

from tickstock.errors import FeedUnreachableError

CONNECTION_ERRORS = (OSError, WebSocketException)
"""What a broken or impossible connection raises."""

LARGEST_MESSAGE = 32_000_000
"""Bytes. A minute bar of each of ten thousand symbols takes two millions."""

_POLL = 0.1  # seconds between looks at the stop event

_READ_AHEAD = 65_536  # bytes

_NOT_A_FEED = "what answers there is not a WebSocket server"

# First match wins: subclasses stand before their base. The library's own texts are not used, since
# they quote what the other side sent, headers and all.
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (websocket.WebSocketTimeoutException, "no answer in time"),
    (websocket.WebSocketConnectionClosedException, "the other side hung up"),
    (websocket.WebSocketAddressException, "the host name cannot be resolved"),
    (websocket.WebSocketProxyException, "the proxy refuses"),
    (websocket.WebSocketProtocolException, "it breaks the WebSocket protocol"),
    (WebSocketException, _NOT_A_FEED),
    (TimeoutError, "no answer in time"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionError, "the other side hung up"),
    (socket.gaierror, "the host name cannot be resolved"),
    (ssl.SSLError, "the TLS handshake failed"),
)


class MessageTooLargeError(WebSocketException):
    """A message that would fill the memory, or never ends."""


class FeedSocket(websocket.WebSocket):
    """A WebSocket that reads ahead, and whose answers to control frames may fail.

    The library reads each frame in three small steps; many frames lie in one read of a busy feed.
    The feed may drop the connection right after a status or a close frame; what it said is worth
    more than the failure to answer, which the next read will tell anyway.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.heard = time.monotonic()
        """When bytes last arrived, be they part of a frame only; on the monotonic clock."""
        self._ahead = b""
        self._used = 0

    def _recv(self, bufsize: int) -> bytes:
        start = self._used
        if start >= len(self._ahead):
            self._check_size()
            self._ahead = super()._recv(_READ_AHEAD)  # type: ignore[no-untyped-call]
            self.heard = time.monotonic()
            start = 0
        self._used = start + bufsize
        return self._ahead[start : self._used]

    def _check_size(self) -> None:
        """Of the message that is coming, as far as its frames have said how large they are."""
        size = self.frame_buffer.length or 0
        if self.cont_frame.cont_data:
            size += len(self.cont_frame.cont_data[1])
        if size > LARGEST_MESSAGE:
            raise MessageTooLargeError(f"a message of more than {LARGEST_MESSAGE / 1e6:g} MB")

    def send_close(self, status: int = websocket.STATUS_NORMAL, reason: str | bytes = b"") -> None:
        with suppress(*CONNECTION_ERRORS):
            super().send_close(status, reason)

    def pong(self, payload: str | bytes = "") -> None:
        with suppress(*CONNECTION_ERRORS):
            super().pong(payload)

    def shutdown(self) -> None:
        """Close the TCP connection at once."""
        super().shutdown()  # type: ignore[no-untyped-call]


def check_url(url: str) -> None:
    """Raises FeedUnreachableError unless `url` is a WebSocket address with a host."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise FeedUnreachableError(
            f"{redact_url(url)!r} is not the address of a feed: "
            "set TICKSTOCK_FEED_URL to one like wss://host/stocks."
        )


def redact_url(url: str) -> str:
    """`url` without what may be secret: user, password and query."""
    without_user = re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)
    return re.sub(r"\?.*", "?***", without_user, flags=re.DOTALL)


def describe(error: Exception) -> str:
    """A connection's failure in a few words that quote nothing the other side sent."""
    if isinstance(error, websocket.WebSocketBadStatusException):
        return f"{_NOT_A_FEED} (HTTP status {error.status_code})"
    if isinstance(error, MessageTooLargeError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted ({error.verify_message})"
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return getattr(error, "strerror", None) or type(error).__name__


def open_socket(url: str, timeout: float, stop: threading.Event) -> FeedSocket | None:
    """A WebSocket connected to `url`, TLS verified; None if `stop` is set before it is open.

    Raises one of CONNECTION_ERRORS when it fails or takes more than `timeout` seconds. An attempt
    that is given up ends by itself, within about `timeout` seconds and without holding up an exit.
    """
    opening: Future[FeedSocket] = Future()
    # A thread, since nothing else can abandon the resolving of a name or a TCP or TLS handshake.
    threading.Thread(
        target=_open, args=(url, timeout, opening), name="tickstock-feed-open", daemon=True
    ).start()
    deadline = time.monotonic() + timeout
    while not stop.is_set():
        if wait([opening], timeout=_POLL).done:
            return opening.result()
        if time.monotonic() > deadline:
            opening.add_done_callback(_discard)
            raise TimeoutError
    opening.add_done_callback(_discard)
    return None


def _open(url: str, timeout: float, opening: "Future[FeedSocket]") -> None:
    try:
        opening.set_result(_connect(url, timeout))
    except CONNECTION_ERRORS as error:  # first, for a bad certificate is a ValueError as well
        opening.set_exception(error)
    except UnicodeError:  # a host name that cannot be written in DNS
        opening.set_exception(socket.gaierror())
    except (ValueError, IndexError):  # how some versions of the library fail on what is not HTTP
        opening.set_exception(WebSocketException(_NOT_A_FEED))
    except BaseException as error:  # whatever it is, it belongs to the thread that waits
        opening.set_exception(error)


def _connect(url: str, timeout: float) -> FeedSocket:
    opened = websocket.create_connection(
        url,
        timeout=timeout,
        class_=FeedSocket,
        skip_utf8_validation=True,  # pure Python and slow; the JSON parser validates anyway
        redirect_limit=0,  # the key goes to the host that was named, and to no other
        socket=_direct(url, timeout),
    )
    return cast(FeedSocket, opened)


def _direct(url: str, timeout: float) -> socket.socket | None:
    """A connection to a server on this machine, past any proxy of the environment, else None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "ws" or not _is_loopback(host):
        return None
    direct = socket.create_connection((host, parts.port or 80), timeout)
    direct.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return direct


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _discard(opening: "Future[FeedSocket]") -> None:
    if opening.exception() is None:
        opening.result().shutdown()
