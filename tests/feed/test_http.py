"""One question to a REST API: retries, refusals, half answers, the rate limit, and where the key goes."""

import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tickstock.errors import (
    RestAnswerError,
    RestFailedError,
    RestNotInPlanError,
    RestRefusedError,
    RestUnavailableError,
    TickstockError,
)
from tickstock.feed.backoff import Backoff
from tickstock.feed.http import Api, RateLimit, StoppedError

from .client_run import KEY, Recorder
from .http_server import HttpServer, Reply
from .scripted_server import DEADLINE
from .test_opening import make_certificate

ANSWER = {"status": "OK", "results": [{"T": "AAPL", "v": 1.5}]}
GOOD = Reply(content=ANSWER)


def api(url: str, **options: Any) -> Api:
    defaults = {"stop": threading.Event(), "backoff": Backoff(first=0.001, cap=0.001)}
    return Api(url, KEY, **{**defaults, **options})


def failure(asked: Api, path: str = "/v1/x") -> Exception:
    """What a question ends with: one line, without the key, and nothing behind it that has it."""
    with pytest.raises(TickstockError) as raised:
        asked.get(path)
    error = raised.value
    assert KEY not in str(error)
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    return error


def test_the_key_is_in_the_header_and_the_connection_is_kept() -> None:
    with HttpServer(GOOD) as server:
        asked = api(server.url + "/")
        for number in range(5):
            assert asked.get(f"/v1/x?n={number}") == ANSWER
        asked.close()
    assert [request.path for request in server.requests] == [f"/v1/x?n={n}" for n in range(5)]
    assert {r.headers["Authorization"] for r in server.requests} == {f"Bearer {KEY}"}
    assert server.connections == 1
    assert (asked.counts.calls, asked.counts.retries, asked.counts.throttled) == (5, 0, 0)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_large_answer_comes_whole_and_keeps_the_connection(framing: str, zipped: bool) -> None:
    large = {"results": [{"t": 60_000 * n, "o": n / 7} for n in range(20_000)]}
    with HttpServer(Reply(content=large, framing=framing, zipped=zipped)) as server:
        asked = api(server.url)
        assert [asked.get("/v1/x") for _ in range(2)] == [large] * 2
    assert (server.connections, asked.counts.retries) == (1, 0)
    assert server.requests[0].headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize("status", [408, 413, 429, 499, 500, 502, 503, 504, 520])
def test_what_passes_is_asked_again(status: int) -> None:
    bad = Reply(status, b"<html>no JSON</html>")
    with HttpServer(bad, bad, GOOD) as server:
        asked = api(server.url)
        assert asked.get("/v1/x") == ANSWER
    assert (asked.counts.calls, asked.counts.retries) == (3, 2)
    assert asked.counts.throttled == (2 if status == 429 else 0)


def test_there_is_an_end_to_asking() -> None:
    with HttpServer(Reply(503, {"error": f"down,\nsays {KEY}"})) as server:
        error = failure(api(server.url, tries=3))
    assert type(error) is RestFailedError
    assert str(error).startswith(f"{server.url}/v1/x answers 503 (down, says (the key)) (3 tries)")
    assert len(server.requests) == 3


def test_each_question_has_all_its_tries() -> None:
    with HttpServer(Reply(503), Reply(503), GOOD, Reply(503), Reply(503), GOOD) as server:
        waits = Recorder(0.001)
        asked = api(server.url, tries=3, backoff=waits)
        assert [asked.get("/v1/x"), asked.get("/v1/x")] == [ANSWER, ANSWER]
    assert waits.calls == ["reset", "next", "next"] * 2


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply(401, {"error": f"Unknown API Key {KEY}"}), RestRefusedError, "set MASSIVE_API_KEY"),
        (Reply(403, {"message": "You are not entitled"}), RestNotInPlanError,
         "answers 403 (You are not entitled): the plan of the key in MASSIVE_API_KEY"),
        (Reply(400, {"error": "bad 'from'"}), RestAnswerError, "/v1/x answers 400 (bad 'from')"),
        (Reply(404, b"?"), RestAnswerError, "/v1/x answers 404 (Not Found)"),
        (Reply(204, b""), RestAnswerError, "answers 204"),
        (Reply(200, {"status": "ERROR", "error": "odd"}), RestAnswerError, "answers 200 (odd)"),
    ],
)  # fmt: skip
def test_what_is_final_is_asked_once(reply: Reply, kind: type[Exception], said: str) -> None:
    with HttpServer(reply) as server:
        error = failure(api(server.url), "/v1/x?limit=5")
    assert type(error) is kind
    assert said in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("zipped", [False, True])
def test_half_an_answer_is_none(framing: str, zipped: bool) -> None:
    whole = GOOD._replace(framing=framing, zipped=zipped)
    # At the end of gzip is a checksum: without it the content is whole.
    length = len(whole.body) - (12 if zipped and framing == "close" else 0)
    cuts = [0, 1, length // 2, length - 1]
    halves = [whole._replace(cut=cut) for cut in cuts]
    with HttpServer(*(reply for half in halves for reply in (half, whole))) as server:
        asked = api(server.url)
        assert [asked.get("/v1/x") for _ in cuts] == [ANSWER] * len(cuts)
    assert asked.counts.retries == len(cuts)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"a":', b"[" * 100_000])
def test_what_is_no_object_is_not_taken_for_an_answer(body: bytes) -> None:
    with HttpServer(Reply(content=body)) as server:
        error = failure(api(server.url, tries=2))
    assert type(error) is RestFailedError
    assert "does not answer with a JSON object (2 tries): check --rest-url" in str(error)


def test_a_server_that_is_not_there(closed_port: int) -> None:
    error = failure(api(f"http://127.0.0.1:{closed_port}", tries=2))
    assert type(error) is RestUnavailableError
    assert "cannot be reached (2 tries): check --rest-url (TICKSTOCK_REST_URL)" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue may refuse")
def test_a_server_that_takes_no_connection_is_not_there() -> None:
    """A firewall that drops what it does not like, that is: each question would wait as long."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(3):
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(address)
        error = failure(api(f"http://127.0.0.1:{address[1]}", tries=1, answer_timeout=0.5))
    assert type(error) is RestUnavailableError
    assert "gave no answer within 0.5 s (1 tries)" in str(error)


def test_throttling_concerns_every_question() -> None:
    with HttpServer(Reply(429)) as server:
        assert type(failure(api(server.url, tries=2))) is RestUnavailableError


def test_an_answer_that_never_ends_ends_by_the_clock() -> None:
    with HttpServer(Reply(drip=True, framing="close")) as server:
        error = failure(api(server.url, tries=1, answer_timeout=0.2))
        assert "gave no answer within 0.2 s" in str(error)
        assert server.left.wait(DEADLINE)


def test_an_answer_that_is_too_large_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where it is small on its way."""
    monkeypatch.setattr("tickstock.feed.http.LARGEST_ANSWER", 100_000)
    large = Reply(content={"results": 1_000_000 * "x"}, zipped=True)
    with HttpServer(large, GOOD) as server:
        asked = api(server.url)
        error = failure(asked)
        assert type(error) is RestAnswerError
        assert "answers more than 0.1 MB" in str(error)
        assert asked.get("/v1/x") == ANSWER


def test_a_server_without_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = failure(
            api(f"http://127.0.0.1:{silent.getsockname()[1]}", tries=2, answer_timeout=0.1)
        )
    assert "gave no answer within 0.1 s (2 tries)" in str(error)


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    with HttpServer(Reply(503, headers={"Retry-After": "200"})) as server:
        threading.Timer(0.2, stop.set).start()
        before = time.monotonic()
        with pytest.raises(StoppedError):
            api(server.url, stop=stop).get("/v1/x")
        assert time.monotonic() - before < 5
        assert len(server.requests) == 1
        with pytest.raises(StoppedError):
            api(server.url, stop=stop).get("/v1/x")
        assert len(server.requests) == 1


def test_stop_ends_an_answer_that_is_coming() -> None:
    stop = threading.Event()
    with HttpServer(Reply(drip=True, framing="close")) as server:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(StoppedError):
            api(server.url, stop=stop).get("/v1/x")
        assert server.left.wait(DEADLINE)


@pytest.mark.parametrize(
    ("header", "seconds"), [("1", 1.0), ("3600", 1.0), ("soon", 0.0), ("-5", 0.0)]
)
def test_the_server_says_when_to_come_again(
    header: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickstock.feed.http.LONGEST_RETRY_AFTER", 1.0)
    with HttpServer(Reply(429, headers={"Retry-After": header}), GOOD) as server:
        assert api(server.url).get("/v1/x") == ANSWER
    first, second = server.requests
    assert seconds <= second.at - first.at < seconds + 5


def test_never_more_calls_in_a_window() -> None:
    with HttpServer(GOOD) as server:
        asked = api(server.url, limit=RateLimit(3, window=0.3))
        for _ in range(10):
            asked.get("/v1/x")
    times = [request.at for request in server.requests]
    assert all(later - at >= 0.3 for at, later in zip(times, times[3:], strict=False))
    assert times == sorted(times)


def test_the_limit_lets_the_first_calls_through() -> None:
    limit = RateLimit(2, window=60)
    dues = []
    for _ in range(3):
        dues.append(limit.due())
        limit.count()
    assert dues[:2] == [0, 0]
    assert 59 < dues[2] <= 60
    for calls, window in ((0, 60.0), (1, 0.0)):
        with pytest.raises(ValueError, match="at least one call"):
            RateLimit(calls, window)


def test_retries_count_in_the_window_too() -> None:
    with HttpServer(Reply(500), Reply(500), Reply(500), GOOD) as server:
        api(server.url, limit=RateLimit(1, window=0.2)).get("/v1/x")
    assert all(later.at - one.at >= 0.2 for one, later in pairwise(server.requests))


def test_too_many_requests_wait_for_the_end_of_the_window() -> None:
    # Others may use the key: the server's count is full before ours.
    with HttpServer(Reply(429), GOOD) as server:
        api(server.url, limit=RateLimit(5, window=0.5)).get("/v1/x")
    first, second = server.requests
    assert second.at - first.at >= 0.5


def test_no_redirect_is_followed() -> None:
    with HttpServer(GOOD) as other:
        there = f"{other.url}/x?apiKey={KEY}"
        with HttpServer(Reply(302, headers={"Location": there})) as server:
            error = failure(api(server.url))
    assert type(error) is RestAnswerError
    assert f"points to {other.url}/x" in str(error)
    assert not other.requests


def test_a_next_page_of_the_same_host_is_asked_with_the_key_in_the_header_only() -> None:
    with HttpServer(GOOD) as server:
        asked = api(server.url)
        assert asked.get_next(f"{server.url}/v2/a%20b?cursor=x%3D%3D&b=") == ANSWER
        assert asked.get_next(f"{server.url}/v2/c?cursor=x%3D&apiKey={KEY}") == ANSWER
    first, second = server.requests
    assert (first.path, second.path) == ("/v2/a%20b?cursor=x%3D%3D&b=", "/v2/c?cursor=x%3D")
    assert second.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "form",
    [
        "http://127.0.0.1:{other}/v2/x",
        "http://localhost:{port}/v2/x",
        "https://127.0.0.1:{port}/v2/x",
        "http://127.0.0.1:{port}@localhost:{other}/v2/x",
        "http://localhost:{other}#@127.0.0.1:{port}/v2/x",
        "http://localhost:{other}\\@127.0.0.1:{port}/v2/x",
        "//127.0.0.1:{other}/v2/x",
        "/v2/x",
        "",
        "http://[",
        "http://127.0.0.1:99999999/",
    ],
)
def test_the_key_goes_to_no_other_host(form: str) -> None:
    with HttpServer(GOOD) as other, HttpServer(GOOD) as server:
        url = form.format(other=other.port, port=server.port)
        if "\\" in form:  # read as ours by one rule, as the other's by another: it is asked of ours
            api(server.url).get_next(url)
        else:
            with pytest.raises(RestAnswerError, match="the key is not sent to another host"):
                api(server.url).get_next(url)
            assert not server.requests
    assert not other.requests


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "a\r\nX-Header: b", "schlüssel", "\x7f"])
def test_a_key_that_cannot_be_one(key: str) -> None:
    with pytest.raises(TickstockError, match="set MASSIVE_API_KEY") as raised:
        Api("http://127.0.0.1", key, stop=threading.Event())
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["", "api.massive.com", "ftp://x", "https://", "https://x?apiKey=k3y", "https://u:k3y@x",
     "http://[", "http://x:99999", "http://x#k3y"],
)  # fmt: skip
def test_an_address_that_cannot_be_one(url: str) -> None:
    with pytest.raises(TickstockError, match="TICKSTOCK_REST_URL") as raised:
        api(url)
    assert "k3y" not in str(raised.value)


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    certificate, key = make_certificate(tmp_path, "IP:127.0.0.1")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with HttpServer(GOOD, tls=tls) as server:
        asked = api(server.url)
        if trusted:
            assert asked.get("/v1/x") == ANSWER
        else:
            assert "has a certificate that is not trusted" in str(failure(asked))
            assert (asked.counts.calls, server.requests) == (1, [])
