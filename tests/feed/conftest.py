"""What holds for every test of the feed."""

import logging
import socket
from collections.abc import Iterator

import pytest

from .client_run import KEY


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Whatever a test does: the key is in no line of the log, of any logger at any level."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    written = [caplog.handler.format(record) for record in caplog.get_records("call")]
    assert not [line for line in written if KEY in line]


@pytest.fixture
def closed_port() -> int:
    """A port of loopback on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
