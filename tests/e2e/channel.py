"""A subscriber to Redis channels."""

import json
import time
from types import TracebackType
from typing import Any, Self

import redis

from .program import DEADLINE, eventually


class Channel:
    """Subscribed to a channel from its making; messages are kept in the order of their coming."""

    def __init__(self, url: str, name: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self._name = name
        self._client = redis.Redis.from_url(url)
        self._channel = self._client.pubsub()  # type: ignore[no-untyped-call]
        self._channel.subscribe(name)
        assert self._channel.get_message(timeout=DEADLINE)["type"] == "subscribe"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._channel.close()
        self._client.close()

    def await_messages(self, number: int) -> list[dict[str, Any]]:
        """Wait until there are that many messages; all there are by then."""
        deadline = time.monotonic() + DEADLINE
        while len(self.messages) < number:
            came = self._take(0.5)
            assert came or time.monotonic() < deadline, f"{len(self.messages)} messages of {number}"
        self._client.ping()  # what was published before has been handed to us after this
        while self._take(0.1):  # the client fails where without patience it finds half a message
            pass
        return self.messages

    def await_subscribers(self, number: int) -> None:
        """Wait until that many listen to the channel, this one included."""
        eventually(
            lambda: self._client.pubsub_numsub(self._name)[0][1] == number,
            f"{number} subscribers of {self._name}",
        )

    def _take(self, seconds: float) -> bool:
        message = self._channel.get_message(timeout=seconds)
        if message is not None:
            self.messages.append(json.loads(message["data"]))
        return message is not None
