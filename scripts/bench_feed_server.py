"""A feed that costs its clients no time: it sends what has been encoded before, when it is told to.

bench_feed_server.py FILE: prints its port; then for each client "ready" once it has subscribed. A
line "BEGIN END" on its input sends these bytes of the file, and prints when (time.monotonic) that
began; "next" ends the connection and waits for the next client.
"""

import base64
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ANSWERS = {
    "auth": {"ev": "status", "status": "auth_success", "message": "authenticated"},
    "subscribe": {"ev": "status", "status": "success", "message": "subscribed to: *"},
}


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A WebSocket message as a server sends it."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 2**16:
        length = b"\x7e" + size.to_bytes(2)
    else:
        length = b"\x7f" + size.to_bytes(8)
    return bytes([0x80 | opcode]) + length + payload


class Peer:
    """One client."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._file = connection.makefile("rb")
        self._lock = threading.Lock()

    def send(self, data: "bytes | memoryview[int]") -> None:
        with self._lock, suppress(OSError):
            self._socket.sendall(data)

    def meet(self) -> None:
        """The handshake, and the protocol up to the subscription."""
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                key = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())  # noqa: S324 - the protocol's
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.say({"ev": "status", "status": "connected", "message": "Connected Successfully"})
        for opcode, payload in self._messages():
            if opcode == 1:
                action = json.loads(payload)["action"]
                self.say(ANSWERS[action])
                if action == "subscribe":
                    break
        threading.Thread(target=self._answer_pings, daemon=True).start()

    def say(self, event: dict[str, str]) -> None:
        self.send(frame(json.dumps([event]).encode()))

    def end(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _answer_pings(self) -> None:
        with suppress(OSError):
            for opcode, payload in self._messages():
                if opcode == 9:
                    self.send(frame(payload, 10))

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while head := self._file.read(2):
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(self._file.read(2))
            mask, masked = self._file.read(4), self._file.read(size)
            yield head[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(masked))


def main() -> None:
    data = memoryview(Path(sys.argv[1]).read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            peer = Peer(server.accept()[0])
            peer.meet()
            print("ready", flush=True)
            for line in sys.stdin:
                if line == "next\n":
                    break
                begin, end = map(int, line.split())
                print(monotonic(), flush=True)
                peer.send(data[begin:end])
            else:
                return
            peer.end()


if __name__ == "__main__":
    main()
