"""TLS in front of a server that has none: what a client sees is a real handshake and certificate."""

import asyncio
import ssl
import threading
from contextlib import suppress
from typing import Self

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class TlsProxy:
    """Passes bytes of clients that speak TLS on to a TCP address or a Unix socket.

    `postgres`: clients ask for TLS first, as libpq does; without a context they are refused it.
    """

    def __init__(
        self, target: tuple[str, int] | str, tls: ssl.SSLContext | None, *, postgres: bool = False
    ) -> None:
        self._target = target
        self._tls = tls
        self._postgres = postgres
        self._loop = asyncio.new_event_loop()
        self.port = 0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        server = self._loop.run_until_complete(
            asyncio.start_server(
                self._serve, "127.0.0.1", 0, ssl=None if self._postgres else self._tls
            )
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            first = b""
            if self._postgres:
                first = await reader.readexactly(len(SSL_REQUEST))
                if first == SSL_REQUEST:
                    first = b""
                    writer.write(b"S" if self._tls else b"N")
                    await writer.drain()
                    if self._tls:
                        await writer.start_tls(self._tls)
            if isinstance(self._target, tuple):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
            else:
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            far_writer.write(first)
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()
