"""The vendor's Python client, which merely receives: bench_feed_client.py PORT CHANNEL NUMBER.

Prints when (time.monotonic) it has been given that many messages, parsed.
"""

import sys
from time import monotonic
from typing import Any

from massive import WebSocketClient
from massive.websocket.models import Market


def main() -> None:
    port, channel, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    client = WebSocketClient(
        api_key="bench",
        feed=f"127.0.0.1:{port}",
        market=Market.Stocks,
        subscriptions=[f"{channel}.*"],
        max_reconnects=0,
        secure=False,
    )
    received = 0

    def handle(messages: list[Any]) -> None:
        nonlocal received
        received += len(messages)
        if received >= number:
            print(monotonic(), flush=True)

    client.run(handle)


if __name__ == "__main__":
    main()
