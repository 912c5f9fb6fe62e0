"""What an operator sees when the feed's address is wrong, and how a feed that goes is awaited."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tickstock.errors import FeedUnreachableError
from tickstock.feed.client import State
from tickstock.feed.opening import redact_url

from .client_run import KEY, Run, failure, running, sends_a_bar
from .scripted_server import DEADLINE, Peer, ScriptedServer


@contextmanager
def plain_server(answer: bytes, asked: threading.Event | None = None) -> Iterator[str]:
    """A TCP server that answers one connection with these bytes; yields its address.

    Without an answer it stays silent until the client leaves. `asked` is set by the request.
    """

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(DEADLINE)
            client.recv(65536)
            if asked is not None:
                asked.set()
            client.sendall(answer)
            if not answer:
                client.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/stocks"
        thread.join(DEADLINE)
        assert not thread.is_alive()


def check_unreachable(url: str, shown: str, reason: str, **options: float) -> None:
    name, message = failure(url, **options)
    assert name == "FeedUnreachableError"
    assert message.startswith(f"No feed at {shown}: {reason}")
    assert "TICKSTOCK_FEED_URL" in message


def test_a_refused_connection_is_told_at_once(closed_port: int) -> None:
    url = f"ws://127.0.0.1:{closed_port}/stocks"
    check_unreachable(url, url, "connection refused. ")


def test_secrets_in_the_address_are_not_shown(closed_port: int) -> None:
    url = f"ws://me:{KEY}@127.0.0.1:{closed_port}/{KEY}?apiKey={KEY}"
    shown = f"ws://***@127.0.0.1:{closed_port}/***?***"
    check_unreachable(url, shown, "connection refused. ")


@pytest.mark.parametrize("host", ["a..b", "x" * 80, "no-such-host.invalid"])
def test_a_host_without_an_address_is_told_at_once(host: str) -> None:
    check_unreachable(f"ws://{host}/s", f"ws://{host}/s", "the host name cannot be resolved. ")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", " (HTTP status 404). "),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", " (HTTP status 200). "),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", ". "),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", ". "),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ". "),
        (b"\xff\xfe\r\n\r\n", ". "),
        (b"220\r\n\r\n", ". "),
    ],
)
def test_a_server_of_another_kind_is_told_at_once(answer: bytes, reason: str) -> None:
    with plain_server(answer) as url:
        check_unreachable(url, url, f"what answers there is not a WebSocket server{reason}")


def test_a_server_that_hangs_up_is_told_at_once() -> None:
    with plain_server(b"HTTP/1.1 101") as url:
        check_unreachable(url, url, "the other side hung up. ")


def test_a_silent_server_is_told_in_time() -> None:
    with plain_server(b"") as url:
        check_unreachable(url, url, "no answer in time. ", answer_timeout=0.3)


def test_a_server_that_never_comes_to_an_end_is_told_in_time() -> None:
    told = threading.Event()

    def babble() -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
            while not told.wait(0.02):
                client.sendall(b"x: y\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        thread = threading.Thread(target=babble)
        thread.start()
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        try:
            check_unreachable(url, url, "no answer in time. ", answer_timeout=0.3)
        finally:
            told.set()
            thread.join(DEADLINE)


@pytest.mark.parametrize(
    "url",
    ["", "feed", "http://host/", "ws://", "ws:///x", "wss://h:99999/", "ws://h:x/", "ws://[x/"],
)
def test_what_is_no_address_is_told_before_anything_is_tried(url: str) -> None:
    with pytest.raises(FeedUnreachableError, match="is not the address of a feed"):
        Run(url, ("AAPL",), {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://host/stocks", "wss://host/stocks"),
        ("wss://user:pass@host:1/x", "wss://***@host:1/x"),
        ("wss://user:p/a@ss@host/x", "wss://***@host/x"),
        ("wss://user:p\nass@host/x?key=1&\nb=2", "wss://***@host/x?***"),
    ],
)
def test_redaction(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_stop_ends_an_attempt_to_connect() -> None:
    asked = threading.Event()
    with plain_server(b"", asked) as url, running(url, answer_timeout=2) as run:
        assert asked.wait(DEADLINE)
        assert run.client.state is State.CONNECTING
        run.stop_in_time()
        assert run.client.drop_count == 0


def test_a_feed_that_is_not_there_yet_is_waited_for_if_asked(closed_port: int) -> None:
    url = f"ws://127.0.0.1:{closed_port}/stocks"
    with running(url, fail_fast_at_start=False) as run:
        run.backoff.await_next(3)
        with ScriptedServer(sends_a_bar(), port=closed_port):
            run.bar()
            run.stop_in_time()
    assert run.client.connections == 1
    assert {drop.reason for drop in run.client.drops} == {"cannot connect: connection refused"}
    assert run.client.drop_count >= 3


def test_a_feed_that_goes_away_later_is_waited_for() -> None:
    def goes_away(peer: Peer) -> None:
        peer.serve()
        server.stop_listening()
        peer.hang_up()

    with ScriptedServer(goes_away) as server, running(server.url) as run:
        run.backoff.await_next(4)
        with ScriptedServer(sends_a_bar(), port=server.port):
            run.bar()
            run.stop_in_time()
    assert [drop.reason for drop in run.client.drops][:3] == [
        "connection lost: the other side hung up",
        "cannot connect: connection refused",
        "cannot connect: connection refused",
    ]


def test_a_proxy_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    with ScriptedServer(sends_a_bar()) as server:
        for host in ("127.0.0.1", "localhost"):
            with running(server.url.replace("127.0.0.1", host)) as run:
                run.bar()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for an address or host, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the command openssl is missing")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={name}",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        ("IP:127.0.0.1", True, None),
        ("IP:127.0.0.1", False, "self-signed certificate"),
        ("DNS:example.com", True, "IP address mismatch"),
    ],
)
def test_tls_is_verified(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    trusted: bool,
    reason: str | None,
) -> None:
    certificate, key = make_certificate(tmp_path, name)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with ScriptedServer(sends_a_bar(), tls=tls) as server:
        if reason is None:
            with running(server.url) as run:
                run.bar()
                run.stop_in_time()
        else:
            _, message = failure(server.url)
            assert f"its TLS certificate is not trusted ({reason}" in message
    assert server.handshake_failures == (0 if reason is None else 1)


def test_tls_to_a_server_without_tls_is_told_at_once() -> None:
    with plain_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        url = url.replace("ws:", "wss:")
        check_unreachable(url, url, "the TLS handshake failed. ")
