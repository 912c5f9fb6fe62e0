"""The vendor's REST API, as far as tickstock asks it: bars, who traded on a day, is the market open?

What is asked and how the answer is read is said here; `tickstock.feed.http` gets the answer.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from tickstock.bars import Bar, Refusal
from tickstock.errors import RestAnswerError, RestNotInPlanError, TickstockError
from tickstock.feed.backoff import Backoff
from tickstock.feed.frames import bar_of_row, is_ticker
from tickstock.feed.http import Api, Counts, RateLimit

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.massive.com"
VENDOR_DOMAINS = ("massive.com", "polygon.io")
STATUS_TIMEOUT = 10.0
"""Seconds for the answer whether the market is open."""
LARGEST_PAGE = 50_000
"""Bars in an answer, at most: the vendor's limit."""

_TICKERS_A_PAGE = 1_000
_MOST_PAGES = 1_000
"""Of an answer. What is asked for needs a hundredth of that; more is a server that goes round in circles."""
_MINUTE = timedelta(minutes=1)
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Page(NamedTuple):
    """A stretch of a symbol's minute bars."""

    bars: list[Bar]
    """By start, ascending."""
    refusals: list[Refusal]
    """Rows that could not become a bar; they cost their neighbours nothing."""
    until: datetime
    """Every bar that starts before this moment (UTC) has been told, in this page or one before."""


class RestClient:
    """The vendor's REST API, for one thread. `url`, `key`: see `Api`, as for `stop` and the errors.

    `calls_per_minute`: how many requests the plan allows (the free one: 5); None for no limit.
    `answer_timeout`: seconds for an answer. `page_limit`: bars in one.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        stop: threading.Event,
        calls_per_minute: int | None = None,
        answer_timeout: float = 30.0,
        tries: int = 8,
        page_limit: int = LARGEST_PAGE,
        backoff: Backoff | None = None,
    ) -> None:
        self._api = Api(
            url,
            key,
            stop=stop,
            limit=None if calls_per_minute is None else RateLimit(calls_per_minute),
            answer_timeout=answer_timeout,
            tries=tries,
            backoff=backoff,
        )
        self._page_limit = page_limit
        self._tells_time = True

    @property
    def counts(self) -> Counts:
        """Requests so far; may be read by any thread."""
        return self._api.counts

    def minute_bars(self, symbol: str, starts: datetime, ends: datetime) -> Iterator[Page]:
        """The unadjusted minute bars that start from `starts` to `ends` (exclusive), page by page.

        Both are timezone-aware, else ValueError. Each page is asked for when it is wanted. The last
        one has `until` == `ends`; after an error, go on at the `until` of the page before.
        """
        if starts.tzinfo is None or ends.tzinfo is None:
            raise ValueError("starts and ends need a time zone")
        starts, ends = starts.astimezone(UTC), ends.astimezone(UTC)
        if starts >= ends:
            return
        # Both ends of the vendor's range are included.
        first, last = _milliseconds(starts), _milliseconds(ends) - 1
        path = f"/v2/aggs/ticker/{quote(symbol, safe='')}/range/1/minute/{first}/{last}"
        options = {"adjusted": "false", "sort": "asc", "limit": self._page_limit}
        until = starts
        for answer, more in self._pages(f"{path}?{urlencode(options)}"):
            bars, refusals = _bars(symbol, answer)
            if bars:
                until = max(until, bars[-1].ts + _MINUTE)
            wanted = [bar for bar in bars if starts <= bar.ts < ends]
            yield Page(wanted, refusals, min(until, ends) if more else ends)

    def traded_on(self, day: date) -> list[str]:
        """The symbols with a daily bar on this date in New York, sorted.

        That bar is the regular session's: who traded only before or after it is not among them.
        """
        answer = self._api.get(f"/v2/aggs/grouped/locale/us/market/stocks/{day}?adjusted=false")
        return _names(_results(answer), "T")

    def symbols(self) -> list[str]:
        """Every stock that is listed now, sorted, whether it trades or not."""
        options = {"market": "stocks", "active": "true", "limit": _TICKERS_A_PAGE}
        rows: list[Any] = []
        for answer, _ in self._pages(f"/v3/reference/tickers?{urlencode(options)}"):
            rows += _results(answer)
        return _names(rows, "ticker")

    def market_now(self) -> "MarketNow":
        """Whether the market is open, and what time it is to the vendor."""
        answer = self._api.get("/v1/marketstatus/now")
        told = answer.get("serverTime")
        return MarketNow(str(answer.get("market", "unknown")), told if _is_moment(told) else None)

    def server_time(self) -> str | None:
        """The vendor's clock, as in `MarketNow`; None where it does not tell.

        A plan that does not include that is warned of once, and not asked again.
        """
        if not self._tells_time:
            return None
        try:
            return self.market_now().server_time
        except RestNotInPlanError as error:
            self._tells_time = False
            log.warning("REST does not tell its time, filling goes on without it: %s", error)
            return None

    def close(self) -> None:
        """Close idle connections."""
        self._api.close()

    def _pages(self, path: str) -> Iterator[tuple[dict[str, Any], bool]]:
        """The answer, and those of the pages that follow; whether another one follows."""
        answer = self._api.get(path)
        where = path.partition("?")[0]
        followed: set[str] = set()
        while (url := answer.get("next_url")) is not None:
            if type(url) is not str or url in followed:
                raise RestAnswerError(f"{where}: its pages lead nowhere")
            followed.add(url)
            if len(followed) >= _MOST_PAGES:
                raise RestAnswerError(f"{where}: it has more than {_MOST_PAGES} pages")
            yield answer, True
            answer = self._api.get_next(url)
        yield answer, False


class MarketNow(NamedTuple):
    """The vendor's `/v1/marketstatus/now`."""

    market: str
    """`open`, `extended-hours` or `closed`."""
    server_time: str | None
    """The vendor's clock, ISO 8601 with New York's offset; None where it does not tell."""


def url_beside(feed_url: str) -> str | None:
    """The REST API that belongs to this feed; None where the feed is not one of the vendor's."""
    try:
        host = urlsplit(feed_url).hostname or ""
    except ValueError:  # no address at all, as whoever connects to it will say
        return None
    vendors = any(host == domain or host.endswith(f".{domain}") for domain in VENDOR_DOMAINS)
    return DEFAULT_URL if vendors else None


def runs_by_the_wall(feed_url: str) -> bool:
    """Whether this feed's time is the present: the vendor's. Others may be replays."""
    return url_beside(feed_url) is not None


def market_now(url: str, key: str) -> MarketNow:
    """Ask whether the market is open. TickstockError, without the key in it, when that fails."""
    # One try: the answer is worth a line in the log, not a wait.
    client = RestClient(url, key, stop=threading.Event(), answer_timeout=STATUS_TIMEOUT, tries=1)
    with closing(client):
        return client.market_now()


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


def _results(answer: dict[str, Any]) -> list[Any]:
    """The rows of an answer; where there is nothing, they may be null or missing."""
    rows = answer.get("results")
    if rows is None:
        return []
    if type(rows) is not list:
        raise RestAnswerError(f"the REST API answers without a list: {str(rows)[:80]!r}")
    return rows


def _bars(symbol: str, answer: dict[str, Any]) -> tuple[list[Bar], list[Refusal]]:
    """The bars of an answer, by start, and its rows that are none."""
    found = [bar_of_row(symbol, row) for row in _results(answer)]
    bars = [item for item in found if isinstance(item, Bar)]
    # Stored, these would be wrong and look right.
    if bars and answer.get("ticker", symbol) != symbol:
        raise RestAnswerError(f"asked for {symbol}, the REST API answers {answer['ticker']!r}")
    if bars and answer.get("adjusted", False) is not False:
        raise RestAnswerError(f"{symbol}: asked for unadjusted bars, the REST API adjusts them")
    if any(later.ts < bar.ts for bar, later in pairwise(bars)):
        raise RestAnswerError(f"{symbol}: the REST API does not sort its bars by time")
    return bars, [item for item in found if isinstance(item, Refusal)]


def _is_moment(told: Any) -> bool:
    """Whether this is a time in ISO 8601, with its offset, that can be reckoned with."""
    try:
        moment = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return False
    return moment.tzinfo is not None and _EPOCH.year <= moment.year < MAXYEAR


def _names(rows: list[Any], field: str) -> list[str]:
    """The tickers in this field of the rows, each once, sorted; rows without are left out."""
    names = (row.get(field) for row in rows if type(row) is dict)
    return sorted({name for name in names if is_ticker(name)})


def _milliseconds(moment: datetime) -> int:
    """The first whole millisecond from `moment` on, after the epoch."""
    return -((_EPOCH - moment) // _MILLISECOND)
