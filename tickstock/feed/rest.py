"""The vendor's REST API, as far as ingest asks it: is the market open?

A silent feed and a closed market look the same on the socket; this tells them apart in the log.
"""

import logging
import threading
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
import urllib3

from tickstock.errors import TickstockError

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.massive.com"
VENDOR_DOMAINS = ("massive.com", "polygon.io")
TIMEOUT = 10.0
"""Seconds for an answer."""


class MarketNow(NamedTuple):
    """The vendor's `/v1/marketstatus/now`."""

    market: str
    """`open`, `extended-hours` or `closed`."""
    server_time: str | None
    """The vendor's clock, ISO 8601 with New York's offset; None where it does not tell."""


def url_beside(feed_url: str) -> str | None:
    """The REST API that belongs to this feed; None where the feed is not one of the vendor's."""
    host = urlsplit(feed_url).hostname or ""
    vendors = any(host == domain or host.endswith(f".{domain}") for domain in VENDOR_DOMAINS)
    return DEFAULT_URL if vendors else None


def market_now(url: str, key: str) -> MarketNow:
    """Ask whether the market is open. TickstockError, without the key in it, when that fails."""
    answer = _get(f"{url.rstrip('/')}/v1/marketstatus/now", key)
    return MarketNow(str(answer.get("market", "unknown")), answer.get("serverTime"))


def log_market_now(url: str, key: str) -> threading.Thread:
    """Log the market's state, in a thread of its own: nothing waits for it, and it may fail."""

    def ask() -> None:
        try:
            market, server_time = market_now(url, key)
        except TickstockError as error:
            log.warning("feed: the market's state is unknown, ingest goes on: %s", error)
        else:
            log.info(
                "feed: the market is %s%s", market, f", at {server_time}" if server_time else ""
            )

    thread = threading.Thread(target=ask, name="market status", daemon=True)
    thread.start()
    return thread


def _get(url: str, key: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
    try:
        # No retry here: the answer is worth a line in the log, not a wait.
        answer = urllib3.request("GET", url, headers=headers, timeout=TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise TickstockError(
            f"no answer from {url} ({type(error).__name__}): check --rest-url (TICKSTOCK_REST_URL)"
        ) from error
    if answer.status != 200:
        raise TickstockError(
            f"{url} answers {answer.status} {answer.reason or ''}".rstrip()
            + ": check --rest-url (TICKSTOCK_REST_URL) and the key"
        )
    try:
        content = orjson.loads(answer.data)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise TickstockError(
            f"{url} does not answer in JSON: check --rest-url (TICKSTOCK_REST_URL)"
        )
    return content
