import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feed.test_frames import TICKERS, unhurried
from tickstock.errors import TickstockError
from tickstock.feed.protocol import (
    Status,
    StatusKind,
    auth_message,
    classify,
    subscribe_messages,
    topics,
    unsubscribe_messages,
)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("connected", "Connected Successfully", StatusKind.CONNECTED),
        ("auth_success", "authenticated", StatusKind.AUTH_SUCCESS),
        ("success", "authenticated", StatusKind.AUTH_SUCCESS),
        ("success", "subscribed to: AM.AAPL", StatusKind.SUBSCRIBED),
        ("success", "unsubscribed to: AM.AAPL", StatusKind.SUBSCRIBED),
        ("auth_failed", "authentication failed", StatusKind.AUTH_FAILED),
        ("error", "authentication failed", StatusKind.AUTH_FAILED),
        ("auth_failed", "Your plan doesn't include websocket access. …", StatusKind.NO_ACCESS),
        ("auth_timeout", "No authentication request received.", StatusKind.AUTH_TIMEOUT),
        ("error", "not authorized", StatusKind.NOT_AUTHORIZED),
        ("max_connections", "Maximum number of websocket connections exceeded. You have …",
         StatusKind.MAX_CONNECTIONS),
        ("error", "something else", StatusKind.OTHER),
        ("news", "", StatusKind.OTHER),
    ],
)  # fmt: skip
def test_statuses_are_told_apart(status: str, message: str, kind: StatusKind) -> None:
    assert classify(Status(status, message)) is kind


def test_topics() -> None:
    assert topics(["AAPL", "BRK.A", "AAPL"]) == ["AM.AAPL", "AM.BRK.A"]
    assert topics(["AAPL", "*"], "A") == ["A.*"]
    assert topics([]) == []


@pytest.mark.parametrize("symbol", ["", "A,B", "A B", "A\n"])
def test_what_is_no_symbol_is_refused(symbol: str) -> None:
    with pytest.raises(TickstockError, match="is not a symbol"):
        topics(["AAPL", symbol])


@unhurried
@given(st.lists(TICKERS), st.integers(1, 80))
def test_long_lists_are_split_and_nothing_is_lost(wanted: list[str], limit: int) -> None:
    for build, action in ((subscribe_messages, "subscribe"), (unsubscribe_messages, "unsubscribe")):
        messages = [json.loads(message) for message in build(wanted, limit)]
        lists = [message["params"].split(",") for message in messages]
        assert [topic for each in lists for topic in each] == wanted
        assert all(message["action"] == action for message in messages)
        assert all(len(m["params"]) <= limit or "," not in m["params"] for m in messages)
        assert all(  # no message is sent for what the one before had room for
            len(one["params"]) + 1 + len(each[0]) > limit
            for one, each in zip(messages[:-1], lists[1:], strict=True)
        )


@unhurried
@given(st.text())
def test_any_key_can_be_sent(key: str) -> None:
    assert json.loads(auth_message(key)) == {"action": "auth", "params": key}
