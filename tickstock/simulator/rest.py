"""The simulator's REST side: what the vendor's API says of the same market."""

import base64
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import orjson
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tickstock.bars import Bar
from tickstock.simulator.events import milliseconds, plain
from tickstock.simulator.faults import Faults
from tickstock.simulator.history import History
from tickstock.simulator.market import NEW_YORK, REGULAR_OPENING

STATUS_PATH = "/v1/marketstatus/now"
HOLIDAYS_PATH = "/v1/marketstatus/upcoming"
TICKERS_PATH = "/v3/reference/tickers"
_AGGREGATES = re.compile(r"/v2/aggs/ticker/([^/]+)/range/(\d+)/(\w+)/([^/]+)/([^/]+)")
_GROUPED = re.compile(r"/v2/aggs/grouped/locale/us/market/stocks/([^/]+)")

DEFAULT_LIMIT, LARGEST_LIMIT = 5_000, 50_000
DEFAULT_TICKERS, MOST_TICKERS = 100, 1_000
CLOSE = time(16)

_TOO_MANY = (
    "You've exceeded the maximum requests per minute, please wait or upgrade your subscription to "
    "continue."
)
_NOT_IN_PLAN = "You are not entitled to this data. Please upgrade your plan."
_TROUBLE = (
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)


class _Refusal(Exception):  # noqa: N818
    """A request that is answered with an error."""

    def __init__(self, status: HTTPStatus, error: str) -> None:
        super().__init__(error)
        self.status = status


class _Query(NamedTuple):
    """What an aggregates request asks. `begin`, `end`: milliseconds, both included."""

    symbol: str
    begin: int
    end: int
    adjusted: bool
    descending: bool
    limit: int


class RestApi:
    """Answers the requests of the vendor's API that concern bars, symbols and the market's state.

    Chosen where the vendor's documentation leaves room: of aggregates there are those of one minute;
    an answer holds minutes that are over; `results` is left out where there is nothing. `symbols`:
    those that are listed, traded or not. `splits`: shares that became of one share of a symbol since;
    prices and volumes of answers with `adjusted=true`, the default, are adjusted for it, live bars
    never.
    """

    def __init__(
        self,
        history: History,
        *,
        symbols: Collection[str],
        keys: Collection[str] | None,
        faults: Faults,
        splits: Mapping[str, int],
    ) -> None:
        self.requests = 0
        """Requests answered, faults included."""
        self._history = history
        self._listed = symbols
        self._keys = keys
        self._faults = faults
        self._splits = splits
        self._asked: Counter[str] = Counter()

    def answer(self, request: Request, clock: datetime | None) -> Response | None:
        """The answer; None where the path is none of REST's.

        `clock` is the market's, UTC; before the first minute the market is closed.
        """
        parts = urlsplit(request.path)
        path = parts.path
        if not path.startswith(("/v1/", "/v2/", "/v3/")):
            return None
        self.requests += 1
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if self._keys is not None and _key(request, asked) not in self._keys:
            return _error(HTTPStatus.UNAUTHORIZED, "Unknown API Key", self.requests)
        self._asked[request.path] += 1
        occasion = (request.path, self._asked[request.path])
        if self._faults.strikes("rest_429", *occasion):
            return _error(HTTPStatus.TOO_MANY_REQUESTS, _TOO_MANY, self.requests)
        if self._faults.strikes("rest_5xx", *occasion):
            return self._trouble(occasion)
        try:
            content = self._content(path, asked, clock, occasion, _base(request))
        except _Refusal as refusal:
            return _error(refusal.status, str(refusal), self.requests)
        whole = _json(HTTPStatus.OK, content)
        if self._faults.strikes("rest_cut", *occasion):
            # The length promises more than comes; half of the time nothing comes at all.
            half = len(whole.body) // 2 if self._faults.chance("half", *occasion) < 0.5 else 0
            whole.body = whole.body[:half]
        return whole

    def _trouble(self, occasion: tuple[object, ...]) -> Response:
        status = _TROUBLE[int(self._faults.chance("which", *occasion) * len(_TROUBLE))]
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            return _error(status, "internal server error", self.requests)
        # What stands before the API answers in its own way.
        page = f"<html><body><h1>{status.value} {status.phrase}</h1></body></html>"
        return _response(status, page.encode(), "text/html")

    def _content(
        self,
        path: str,
        asked: Mapping[str, str],
        clock: datetime | None,
        occasion: tuple[object, ...],
        base: str,
    ) -> Any:
        if path == STATUS_PATH:
            if self._faults.strikes("rest_403", *occasion):
                raise _Refusal(HTTPStatus.FORBIDDEN, _NOT_IN_PLAN)
            return market_status(clock)
        if path == HOLIDAYS_PATH:
            return []  # a simulated market trades on every weekday
        if match := _AGGREGATES.fullmatch(path):
            return self._aggregates(_query(match, asked), occasion, base)
        if match := _GROUPED.fullmatch(path):
            return self._grouped(
                _day(unquote(match[1])), asked.get("adjusted") != "false", occasion
            )
        if path == TICKERS_PATH:
            return self._tickers({**asked, **_cursor(asked.get("cursor", ""))}, occasion, base)
        raise _Refusal(HTTPStatus.NOT_FOUND, f"{path} is not among what this simulator serves")

    def _aggregates(self, query: _Query, occasion: tuple[object, ...], base: str) -> dict[str, Any]:
        bars = self._history.bars(query.symbol, query.begin, query.end)
        if query.descending:
            bars.reverse()
        page, rest = bars[: query.limit], bars[query.limit :]
        content = {
            "ticker": query.symbol,
            "queryCount": len(page),
            "resultsCount": len(page),
            "adjusted": query.adjusted,
            **self._results([self._row(bar, query.adjusted) for bar in page], occasion),
            "status": "OK",
            "request_id": _request_id(self.requests),
        }
        if rest:
            content["next_url"] = base + _next_path(query, milliseconds(rest[0].ts))
        return content

    def _grouped(self, day: date, adjusted: bool, occasion: tuple[object, ...]) -> dict[str, Any]:
        opening, closing = (
            milliseconds(datetime.combine(day, at, NEW_YORK)) for at in (REGULAR_OPENING, CLOSE)
        )
        rows = []
        for symbol in self._history.symbols:
            bars = self._history.bars(symbol, opening, closing - 1)
            if bars:
                row = self._row(_day_bar(bars), adjusted)
                rows.append({"T": symbol, **row, "t": closing})
        return {
            "queryCount": len(rows),
            "resultsCount": len(rows),
            "adjusted": adjusted,
            **self._results(rows, occasion),
            "status": "OK",
            "request_id": _request_id(self.requests),
        }

    def _tickers(
        self, asked: Mapping[str, str], occasion: tuple[object, ...], base: str
    ) -> dict[str, Any]:
        """The symbols that are listed: all are stocks, and active."""
        limit = _limit(asked, DEFAULT_TICKERS, MOST_TICKERS)
        if asked.get("sort", "ticker") != "ticker" or asked.get("order", "asc") != "asc":
            raise _Refusal(HTTPStatus.BAD_REQUEST, "this simulator sorts by ticker, ascending")
        names = sorted({*self._listed, *self._history.symbols})
        if asked.get("market", "stocks") != "stocks" or asked.get("active", "true") != "true":
            names = []
        names = [name for name in names if asked.get("ticker", name) == name]
        rest = [name for name in names if name > asked.get("after", "")]
        page = rest[:limit]
        content = {
            **self._results([_ticker(symbol) for symbol in page], occasion),
            "status": "OK",
            "request_id": _request_id(self.requests),
            "count": len(page),
        }
        if len(rest) > limit:
            options = {
                name: asked[name] for name in ("market", "active", "ticker") if name in asked
            }
            cursor = _as_cursor({**options, "limit": limit, "after": page[-1]})
            content["next_url"] = f"{base}{TICKERS_PATH}?cursor={cursor}"
        return content

    def _results(self, rows: list[dict[str, Any]], occasion: tuple[object, ...]) -> dict[str, Any]:
        if rows:
            return {"results": rows}
        return {"results": None} if self._faults.strikes("rest_null", *occasion) else {}

    def _row(self, bar: Bar, adjusted: bool) -> dict[str, Any]:
        split = self._splits.get(bar.symbol, 1) if adjusted else 1
        row = {
            "v": float(bar.volume) * split,
            "vw": _divided(bar.vwap, split),
            "o": _divided(bar.open, split),
            "c": _divided(bar.close, split),
            "h": _divided(bar.high, split),
            "l": _divided(bar.low, split),
            "t": milliseconds(bar.ts),
            "n": bar.trades,
        }
        return {name: value for name, value in row.items() if value is not None}


def market_status(clock: datetime | None) -> dict[str, object]:
    """`/v1/marketstatus/now` at that moment of the simulated market."""
    local = clock.astimezone(NEW_YORK) if clock else None
    hour = local.time() if local else time(0)
    early, after = time(4) <= hour < REGULAR_OPENING, CLOSE <= hour < time(20)
    regular = REGULAR_OPENING <= hour < CLOSE
    market = "open" if regular else "extended-hours" if early or after else "closed"
    return {
        "market": market,
        "earlyHours": early,
        "afterHours": after,
        "serverTime": local.isoformat() if local else None,
        "exchanges": dict.fromkeys(("nyse", "nasdaq", "otc"), market),
    }


def _query(match: re.Match[str], asked: Mapping[str, str]) -> _Query:
    symbol, multiplier, span, begin, end = map(unquote, match.groups())
    if (multiplier, span) != ("1", "minute"):
        raise _Refusal(
            HTTPStatus.NOT_FOUND, f"this simulator has 1/minute, not {multiplier}/{span}"
        )
    asked = {**asked, **_cursor(asked.get("cursor", ""))}
    sort = asked.get("sort", "asc")
    if sort not in ("asc", "desc"):
        raise _Refusal(HTTPStatus.BAD_REQUEST, "sort is asc or desc")
    return _Query(
        symbol,
        _moment("from", begin, timedelta(0)),
        _moment("to", end, timedelta(days=1)),
        asked.get("adjusted", "true") != "false",
        sort == "desc",
        _limit(asked, DEFAULT_LIMIT, LARGEST_LIMIT),
    )


def _limit(asked: Mapping[str, str], default: int, largest: int) -> int:
    text = asked.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= largest):
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"limit is from 1 to {largest}")
    return int(text)


def _moment(name: str, text: str, day_length: timedelta) -> int:
    """A date in New York (its end, for `to`) or a time in ms, as ms."""
    if re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        return int(text)
    try:
        midnight = datetime.combine(date.fromisoformat(text) + day_length, time(0), NEW_YORK)
    except (ValueError, OverflowError):
        raise _Refusal(
            HTTPStatus.BAD_REQUEST,
            f"Could not parse the time parameter: '{name}'. Use YYYY-MM-DD or a millisecond timestamp",
        ) from None
    return milliseconds(midnight) - bool(day_length)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f"{text} is not a date, YYYY-MM-DD") from None


def _next_path(query: _Query, start: int) -> str:
    """The path of the page that begins with the bar at `start`."""
    begin, end = (query.begin, start) if query.descending else (start, query.end)
    sort = "desc" if query.descending else "asc"
    options = {"adjusted": str(query.adjusted).lower(), "limit": query.limit, "sort": sort}
    cursor = _as_cursor(options)
    symbol = quote(query.symbol, safe="")
    return f"/v2/aggs/ticker/{symbol}/range/1/minute/{begin}/{end}?cursor={cursor}"


def _as_cursor(options: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(urlencode(options).encode()).decode().rstrip("=")


def _cursor(text: str) -> dict[str, str]:
    try:
        options = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        raise _Refusal(HTTPStatus.BAD_REQUEST, "that cursor is none of this simulator's") from None
    return {name: values[-1] for name, values in parse_qs(options).items()}


def _day_bar(bars: Sequence[Bar]) -> Bar:
    """The regular session of a symbol in one bar."""
    volume = sum(Decimal(str(bar.volume)) for bar in bars)
    vwap = None
    if volume and all(bar.vwap is not None for bar in bars):
        turnover = sum(Decimal(str(bar.vwap)) * Decimal(str(bar.volume)) for bar in bars)
        vwap = float(round(turnover / volume, 4))
    return Bar(
        bars[0].symbol,
        bars[0].ts,
        bars[0].open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        bars[-1].close,
        plain(Decimal(volume)),
        vwap,
        sum(bar.trades or 0 for bar in bars) or None,
    )


def _ticker(symbol: str) -> dict[str, Any]:
    return {
        "ticker": symbol,
        "name": f"{symbol} (simulated)",
        "market": "stocks",
        "locale": "us",
        "primary_exchange": "XNAS",
        "type": "CS",
        "active": True,
        "currency_name": "usd",
    }


def _divided(number: Any, by: int) -> Any:
    return number if number is None or by == 1 else round(number / by, 6)


def _key(request: Request, asked: Mapping[str, str]) -> str:
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ") if header else asked.get("apiKey", "")


def _base(request: Request) -> str:
    return f"http://{request.headers.get('Host', 'localhost')}"


def _request_id(number: int) -> str:
    return f"{number:032x}"


def _error(status: HTTPStatus, error: str, number: int) -> Response:
    content = {"status": "ERROR", "request_id": _request_id(number), "error": error}
    return _json(status, content)


def _json(status: HTTPStatus, content: object) -> Response:
    return _response(status, orjson.dumps(content), "application/json")


def _response(status: HTTPStatus, body: bytes, content_type: str) -> Response:
    headers = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}",
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, body)
