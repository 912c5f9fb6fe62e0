"""A TCP proxy that cuts connections without a word."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Passes bytes on to a TCP address or a unix socket, until it is told to cut."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self.cuts = 0
        """Connections cut."""
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._over = False

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection, in the middle of whatever is on its way."""
        with self._lock:
            pairs, self._open = self._open, []
        for pair in pairs:
            self.cuts += 1
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
                far = self._connect()
            except OSError:
                continue
            with self._lock:
                self._open.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._target, tuple):
            return socket.create_connection(self._target)
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._target)
        return far

    def _deliver(self, data: bytes, sink: socket.socket) -> None:
        sink.sendall(data)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._deliver(data, sink)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
