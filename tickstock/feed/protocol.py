"""The conversation with the Massive (formerly Polygon.io) stocks feed: what is sent, what answers mean.

No I/O. What comes in besides answers, and how they are told from it, is in `tickstock.feed.frames`.
"""

import json
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from tickstock.errors import TickstockError

MESSAGE_LIMIT = 8_000
"""Characters of topics in one subscribe message."""


class Status(NamedTuple):
    """What the feed says about the connection, as opposed to the market."""

    status: str
    message: str


class StatusKind(Enum):
    """What a status means to a client."""

    CONNECTED = auto()
    AUTH_SUCCESS = auto()
    SUBSCRIBED = auto()
    """A topic was subscribed or unsubscribed. Unknown tickers are acknowledged too."""
    AUTH_FAILED = auto()
    NO_ACCESS = auto()
    """The key is known but its plan does not include the WebSocket feed."""
    AUTH_TIMEOUT = auto()
    NOT_AUTHORIZED = auto()
    """The plan does not include a topic that was asked for."""
    MAX_CONNECTIONS = auto()
    SLOW_CONSUMER = auto()
    """We take what it sends too slowly: it cuts us off."""
    OTHER = auto()


# First match wins: the status, and a part of the message in lower case. Older servers report by
# `success` and `error` what newer ones give a status of its own.
_KINDS = (
    ("connected", "", StatusKind.CONNECTED),
    ("auth_success", "", StatusKind.AUTH_SUCCESS),
    ("success", "subscribed", StatusKind.SUBSCRIBED),
    ("success", "authenticated", StatusKind.AUTH_SUCCESS),
    ("success", "", StatusKind.SUBSCRIBED),
    ("auth_failed", "plan", StatusKind.NO_ACCESS),
    ("auth_failed", "access", StatusKind.NO_ACCESS),
    ("auth_failed", "", StatusKind.AUTH_FAILED),
    ("auth_timeout", "", StatusKind.AUTH_TIMEOUT),
    ("max_connections", "", StatusKind.MAX_CONNECTIONS),
    ("slow_consumer", "", StatusKind.SLOW_CONSUMER),
    ("not_authorized", "", StatusKind.NOT_AUTHORIZED),
    ("error", "not authorized", StatusKind.NOT_AUTHORIZED),
    ("error", "authentication failed", StatusKind.AUTH_FAILED),
    ("error", "maximum number of", StatusKind.MAX_CONNECTIONS),
    ("error", "slow consumer", StatusKind.SLOW_CONSUMER),
)


def classify(status: Status) -> StatusKind:
    """What a status means; OTHER where it means nothing to this client."""
    message = status.message.lower()
    for name, part, kind in _KINDS:
        if status.status == name and part in message:
            return kind
    return StatusKind.OTHER


def topics(symbols: Iterable[str], channel: str = "AM") -> list[str]:
    """The topics that stand for `symbols` on a channel, each once, in order; `*` stands for all.

    Raises TickstockError for a symbol that cannot be part of a topic.
    """
    names = list(dict.fromkeys(symbols))
    for name in names:
        if not name or "," in name or " " in name or not name.isprintable():
            raise TickstockError(
                f"{json.dumps(name[:80])} is not a symbol: give tickers such as AAPL, or '*' for all."
            )
    return [f"{channel}.*"] if "*" in names else [f"{channel}.{name}" for name in names]


def auth_message(key: str) -> str:
    """The message that authenticates. It holds the key: never log it."""
    return _message("auth", key)


def subscribe_messages(wanted: Iterable[str], limit: int = MESSAGE_LIMIT) -> list[str]:
    """Messages that subscribe to the topics, each with at most `limit` characters of topics."""
    return [_message("subscribe", params) for params in _joined(wanted, limit)]


def unsubscribe_messages(unwanted: Iterable[str], limit: int = MESSAGE_LIMIT) -> list[str]:
    """Messages that unsubscribe from the topics, each with at most `limit` characters of topics."""
    return [_message("unsubscribe", params) for params in _joined(unwanted, limit)]


def _joined(parts: Iterable[str], limit: int) -> list[str]:
    """Comma-separated lists of at most `limit` characters; a part longer than that stands alone."""
    lists: list[list[str]] = []
    room = -1
    for part in parts:
        if not lists or len(part) + 1 > room:
            lists.append([])
            room = limit + 1
        lists[-1].append(part)
        room -= len(part) + 1
    return [",".join(each) for each in lists]


def _message(action: str, params: str) -> str:
    return json.dumps({"action": action, "params": params})
