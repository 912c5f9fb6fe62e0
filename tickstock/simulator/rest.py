"""The simulator's REST side: what the vendor's API says of the same market."""

from collections.abc import Collection
from datetime import datetime, time
from http import HTTPStatus
from zoneinfo import ZoneInfo

import orjson
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

STATUS_PATH = "/v1/marketstatus/now"
NEW_YORK = ZoneInfo("America/New_York")


def answer(
    request: Request, keys: Collection[str] | None, clock: datetime | None
) -> Response | None:
    """The answer to a REST request; None where the path is none of REST's.

    `clock` is the market's, UTC; before the first minute the market is closed.
    """
    if request.path.partition("?")[0] != STATUS_PATH:
        return None
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if keys is not None and key not in keys:
        return _json(HTTPStatus.UNAUTHORIZED, {"status": "ERROR", "error": "Unknown API Key"})
    return _json(HTTPStatus.OK, market_status(clock))


def market_status(clock: datetime | None) -> dict[str, object]:
    """`/v1/marketstatus/now` at that moment of the simulated market."""
    local = clock.astimezone(NEW_YORK) if clock else None
    hour = local.time() if local else time(0)
    early, after = time(4) <= hour < time(9, 30), time(16) <= hour < time(20)
    regular = time(9, 30) <= hour < time(16)
    market = "open" if regular else "extended-hours" if early or after else "closed"
    return {
        "market": market,
        "earlyHours": early,
        "afterHours": after,
        "serverTime": local.isoformat() if local else None,
        "exchanges": dict.fromkeys(("nyse", "nasdaq", "otc"), market),
    }


def _json(status: HTTPStatus, content: dict[str, object]) -> Response:
    body = orjson.dumps(content)
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, body)
