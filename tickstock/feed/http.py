"""One question to the vendor's REST API at a time: asked until it is answered, or refused for good.

What is asked and how the answer is read is the business of `tickstock.feed.rest`; here are the key,
the rate limit, retries and what an error means.
"""

import logging
import ssl
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    NewConnectionError,
    SSLError,
    TimeoutError,  # noqa: A004
)

from tickstock.errors import (
    RestAnswerError,
    RestFailedError,
    RestNotInPlanError,
    RestRefusedError,
    RestUnavailableError,
    TickstockError,
)
from tickstock.feed.backoff import Backoff
from tickstock.feed.frames import loads

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection, at most."""
LARGEST_ANSWER = 64_000_000
"""Bytes, unzipped: several times what 50,000 bars take."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds: a server that asks for a longer pause is asked again after these."""

_CHECK_URL = "check --rest-url (TICKSTOCK_REST_URL)"
_CHECK_KEY = "set MASSIVE_API_KEY to a valid key of this API"
_PIECE = 1 << 16
_SAID_LIMIT = 300
_PASSING = frozenset((408, 413, 429, 499))
"""Statuses below 500 that are worth another try."""


class StoppedError(Exception):
    """`stop` was set before the answer was there. No failure, but what came so far is not all."""


@dataclass
class Counts:
    """What was asked of the REST API so far."""

    calls: int = 0
    """Requests sent, retries included."""
    retries: int = 0
    """Requests that had to be sent again."""
    throttled: int = 0
    """Answers that there were too many requests (429)."""


class RateLimit:
    """At most `calls` requests in any `window` seconds, as the server counts them.

    A request is counted from its answer, so that the time it takes on its way cannot bring two of them
    closer together there than here. ValueError unless `calls` >= 1 and `window` > 0.
    """

    def __init__(self, calls: int, window: float = 60.0) -> None:
        if not (calls >= 1 and window > 0):
            raise ValueError("a rate limit needs at least one call in a window of some seconds")
        self._answered: deque[float] = deque(maxlen=calls)
        self._window = window

    def due(self) -> float:
        """Seconds until the next request may be sent."""
        return self.left() if len(self._answered) == self._answered.maxlen else 0.0

    def left(self) -> float:
        """Seconds until the oldest request counted does not matter any more."""
        if not self._answered:
            return 0.0
        return max(0.0, self._answered[0] + self._window - time.monotonic())

    def count(self) -> None:
        """A request has been answered, or has failed."""
        self._answered.append(time.monotonic())


class _Passing(Exception):  # noqa: N818
    """A try that failed for now.

    `pause`: seconds that the next one must wait, at least. `general`: another question would have
    fared no better.
    """

    def __init__(self, reason: str, pause: float = 0.0, *, general: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause
        self.general = general


class Api:
    """A REST API in JSON, asked with a key in the header, for one thread.

    `url`: scheme and host, with a path before the API's own if need be. The key goes to that host
    alone, and only in the header `Authorization`: it is in no URL, message or line of the log.
    Redirects are not followed. `stop` ends each wait at once, and an answer under way at its next
    piece; a silent server holds it up for `answer_timeout` seconds at most, the time for an answer.
    `tries`: how often a request is sent that fails in passing: no or half an answer, 429, 413, 499,
    5xx.

    Raises TickstockError for a URL or a key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        stop: threading.Event,
        limit: RateLimit | None = None,
        answer_timeout: float = 30.0,
        tries: int = 8,
        backoff: Backoff | None = None,
    ) -> None:
        self.counts = Counts()
        self._base = _base(url)
        if not (key and key.isascii() and key.isprintable() and " " not in key):
            # http.client would show it in its complaint.
            raise TickstockError(f"the API key has characters that no key has: {_CHECK_KEY}")
        self._key = key
        self._stop = stop
        self._limit = limit
        self._answer_timeout = answer_timeout
        self._tries = tries
        self._backoff = backoff or Backoff()
        self._pool = urllib3.PoolManager(
            num_pools=1,
            headers={
                "Authorization": f"Bearer {key}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            },
            timeout=urllib3.Timeout(
                connect=min(CONNECT_TIMEOUT, answer_timeout), read=answer_timeout
            ),
            retries=False,
            cert_reqs="CERT_REQUIRED",
        )

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object that answers a GET of `path` (with its query; quoted), retried as needed.

        Raises RestUnavailableError when the server can't be reached or throttles each try,
        RestFailedError when it fails at this question each time, RestRefusedError for a key or
        RestNotInPlanError for a plan that is not accepted, RestAnswerError for anything else that is
        no answer, StoppedError when `stop` was set.
        """
        return self._get(self._base.geturl() + path)

    def get_next(self, url: str) -> dict[str, Any]:
        """As `get`, of a URL that an answer gave as its next page.

        RestAnswerError where it leads to another host: the key would be told there.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = SplitResult("", "", "", "", "")
        if _origin(parts) != _origin(self._base):
            raise RestAnswerError(
                f"{self._base.geturl()} gives a next page at {self._clean(_shown(parts))!r}: the key "
                "is not sent to another host; if that is the vendor's, set --rest-url to it"
            )
        query, options = parts.query, parse_qsl(parts.query, keep_blank_values=True)
        if any(name.lower() == "apikey" for name, _ in options):
            query = urlencode([option for option in options if option[0].lower() != "apikey"])
        # On our own words about the host: two readers of a URL need not agree on it.
        base = self._base
        return self._get(urlunsplit((base.scheme, base.netloc, parts.path, query, "")))

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def _get(self, url: str) -> dict[str, Any]:
        where = _shown(urlsplit(url))
        self._backoff.reset()
        for left in reversed(range(self._tries)):
            try:
                return self._try(url, where)
            except _Passing as trouble:
                reason, pause, general = str(trouble), trouble.pause, trouble.general
            if left:
                pause = max(pause, self._backoff.next())
                log.info("rest: %s %s; asking again in %.1f s", where, reason, pause)
                self._wait(pause)
                self.counts.retries += 1
        kind = RestUnavailableError if general else RestFailedError
        raise kind(f"{where} {reason} ({self._tries} tries): {_CHECK_URL}")

    def _try(self, url: str, where: str) -> dict[str, Any]:
        while self._limit and (pause := self._limit.due()) > 0:
            self._wait(pause)
        self._wait(0)
        self.counts.calls += 1
        try:
            answer, body = self._ask(url)
        except HTTPError as error:
            reason = _trouble(error, self._answer_timeout)
            if _is_untrusted(error):
                raise RestUnavailableError(f"{where} {reason}: {_CHECK_URL}") from None
            gone = isinstance(error, NewConnectionError | ConnectTimeoutError)
            raise _Passing(reason, general=gone) from None
        finally:
            if self._limit:
                self._limit.count()
        content = _object(body)
        self._judge(answer, content, where)
        if content is None:
            # Not taken for final: something in between may have cut it off.
            raise _Passing("does not answer with a JSON object")
        return content

    def _ask(self, url: str) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        deadline = time.monotonic() + self._answer_timeout
        answer = self._pool.request("GET", url, preload_content=False, redirect=False)
        body = bytearray()
        try:
            # read1, unlike stream, hands over what is there: the clock is looked at in between.
            while piece := answer.read1(_PIECE):
                body += piece
                if len(body) > LARGEST_ANSWER:
                    where = _shown(urlsplit(url))
                    raise RestAnswerError(f"{where} answers more than {LARGEST_ANSWER / 1e6:g} MB")
                if time.monotonic() > deadline:
                    raise TimeoutError
                self._wait(0)
        except BaseException:
            answer.close()  # the rest of it may never end
            raise
        return answer, bytes(body)

    def _judge(
        self, answer: urllib3.BaseHTTPResponse, content: dict[str, Any] | None, where: str
    ) -> None:
        """Return for an answer, raise for anything else."""
        status = answer.status
        if status == HTTPStatus.OK and not (content and content.get("status") == "ERROR"):
            return
        said = f"answers {status}{self._said(answer, content or {})}"
        if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            throttled = status == HTTPStatus.TOO_MANY_REQUESTS
            raise _Passing(said, self._pause(answer), general=throttled)
        if status == HTTPStatus.UNAUTHORIZED:
            raise RestRefusedError(f"{where} {said}: {_CHECK_KEY}, or {_CHECK_URL}")
        if status == HTTPStatus.FORBIDDEN:
            raise RestNotInPlanError(
                f"{where} {said}: the plan of the key in MASSIVE_API_KEY does not include it"
            )
        if target := answer.headers.get("Location"):
            said += f", and points to {self._clean(target)}"
        raise RestAnswerError(f"{where} {said}: {_CHECK_URL}")

    def _pause(self, answer: urllib3.BaseHTTPResponse) -> float:
        pause = 0.0
        with suppress(InvalidHeader, ValueError, OverflowError):
            asked = urllib3.Retry().parse_retry_after(answer.headers.get("Retry-After", "0"))
            pause = min(asked, LONGEST_RETRY_AFTER)
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self.counts.throttled += 1
            if self._limit:
                pause = max(pause, self._limit.left())
        return pause

    def _said(self, answer: urllib3.BaseHTTPResponse, content: dict[str, Any]) -> str:
        """What the vendor says of a failure, in parentheses; else the status's name."""
        text = content.get("error") or content.get("message") or answer.reason
        return f" ({self._clean(str(text))})" if text else ""

    def _clean(self, text: str) -> str:
        """Foreign text on one line, without the key."""
        text = text.replace(self._key, "(the key)")
        return "".join(c if c.isprintable() else " " for c in text)[:_SAID_LIMIT]

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in an answer; None where there is none, or only a part of it."""
    with suppress(ValueError):
        content = loads(body)
        if type(content) is dict:
            return content
    return None


def _base(url: str) -> SplitResult:
    """The API's address; TickstockError for what is none, or would put a secret into messages."""
    try:
        parts = urlsplit(url.strip().rstrip("/"))
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or "@" in parts.netloc:
        raise TickstockError(
            "the address of the REST API is not of the form https://HOST, without user and query: "
            + _CHECK_URL
        )
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; none that equals a real one where the port is no number."""
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port


def _shown(parts: SplitResult) -> str:
    """A URL as messages show it: without the query, which may be long, and without a user."""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _is_untrusted(error: HTTPError) -> bool:
    """Whether the server's certificate is refused: no retry mends that."""
    return isinstance(error, SSLError) and any(
        isinstance(cause, ssl.SSLCertVerificationError) for cause in (error.__cause__, *error.args)
    )


def _trouble(error: HTTPError, timeout: float) -> str:
    """What went wrong on the way, to follow the address in a sentence."""
    if isinstance(error, NewConnectionError):
        return "cannot be reached"
    if isinstance(error, TimeoutError):
        return f"gave no answer within {timeout:g} s"
    if _is_untrusted(error):
        return f"has a certificate that is not trusted ({error})"
    return f"gave no whole answer ({type(error).__name__})"
