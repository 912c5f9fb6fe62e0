"""REST that knows of no trade, and refuses some symbols."""

from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import parse_qs, unquote, urlsplit

from psycopg import Connection
from psycopg.rows import TupleRow

from tests.feed.http_server import HttpServer, Reply
from tickstock.db.connection import fetch_value

STATUS = "/v1/marketstatus/now"
GROUPED = "/v2/aggs/grouped/"
BARS = "/v2/aggs/ticker/"
REFUSALS = {
    "not in the plan": Reply(403, {"message": "you are not entitled"}),
    "not found": Reply(404, {"error": "no such ticker"}),
    "an error": Reply(500, {"error": "broken"}),
    "no JSON": Reply(200, b"<html>"),
    "half an answer": Reply(200, {"status": "OK"}, cut=3),
    "of another symbol": Reply(
        200, {"ticker": "OTHER", "results": [{"t": 0, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1}]}
    ),
}


class ChoosyRest(HttpServer):
    """`clock`: its time. `traded`: who traded, on each day. `refused`: how it answers for these."""

    def __init__(
        self, clock: datetime, *, traded: list[str] | None = None, refused: Mapping[str, Reply]
    ) -> None:
        super().__init__()
        self.traded = traded or []
        self.refused = dict(refused)
        self.refuses_status = False
        self.time: object = clock.isoformat()
        """What it says of its time."""
        self.on_bars: Callable[[str], None] = lambda _: None
        """Called with the symbol before it is answered."""

    def reply(self, path: str, number: int) -> Reply:  # noqa: ARG002
        if path == STATUS and self.refuses_status:
            return REFUSALS["not in the plan"]
        if path == STATUS:
            return Reply(content={"market": "closed", "serverTime": self.time})
        if path.startswith(GROUPED):
            return Reply(content={"results": [{"T": name} for name in self.traded]})
        symbol = _symbol(path)
        self.on_bars(symbol)
        return self.refused.get(symbol, Reply(content={"ticker": symbol, "results": None}))

    def vanish(self) -> None:
        """From now on no connection is accepted."""
        self._server.shutdown()
        self._server.socket.close()

    @property
    def asked(self) -> list[tuple[str, datetime]]:
        """The symbols whose bars it was asked for, and from when, in this order."""
        paths = [request.path for request in self.requests]
        return [(_symbol(path), _starts(path)) for path in paths if path.startswith(BARS)]

    @property
    def symbols(self) -> list[str]:
        return [symbol for symbol, _ in self.asked]

    def count(self, beginning: str) -> int:
        return sum(request.path.startswith(beginning) for request in self.requests)

    def days(self) -> list[str]:
        """The days of which it was asked who traded."""
        found = [r.path for r in self.requests if r.path.startswith(GROUPED)]
        assert all(parse_qs(urlsplit(path).query) == {"adjusted": ["false"]} for path in found)
        return [urlsplit(path).path.rpartition("/")[2] for path in found]


def _symbol(path: str) -> str:
    return unquote(path.removeprefix(BARS).partition("/")[0])


def _starts(path: str) -> datetime:
    return datetime.fromtimestamp(int(urlsplit(path).path.split("/")[-2]) / 1000).astimezone()


def lose(
    conn: Connection[TupleRow], symbols: list[str] | None, starts: datetime, latest: datetime
) -> None:
    """A subscription that brought nothing but its first and its last bar for sure, and was stopped."""
    stretch = fetch_value(conn, "select tickstock.open_stretch('ws://x', 'AM', %s)", symbols)
    conn.execute("select tickstock.extend_stretch(%s, %s, %s, 2)", (stretch, starts, latest))
    conn.execute("select tickstock.close_stretch(%s, 'over', true)", (stretch,))
