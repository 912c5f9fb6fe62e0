"""The embedded Redis: a real server that leaves nothing behind."""

import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.e2e.program import eventually
from tickstock.embedded.redis import embedded_redis, find_redis_server
from tickstock.errors import TickstockError

from .support import linux_only

pytestmark = pytest.mark.skipif(find_redis_server() is None, reason="no Redis server found")

_HOLD = """
import sys
from tickstock.embedded.redis import embedded_redis
with embedded_redis() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def socket_of(url: str) -> Path:
    return Path(urlsplit(url).path)


def processes_with(text: str) -> list[Path]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in each.read_bytes():
                found.append(each)
        except OSError:
            continue
    return found


def test_round_trip() -> None:
    with embedded_redis() as url, redis.from_url(url) as client:
        with client.pubsub() as subscription:
            subscription.subscribe("news")
            assert subscription.get_message(timeout=10) is not None
            client.publish("news", "hello")
            message = subscription.get_message(timeout=10)
            assert message is not None
            assert message["data"] == b"hello"
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("port") == {"port": "0"}
    assert not socket_of(url).parent.exists()


def test_two_servers_are_two() -> None:
    with (
        embedded_redis() as one,
        embedded_redis() as two,
        redis.from_url(one) as first,
        redis.from_url(two) as second,
    ):
        first.set("key", "value")
        assert second.get("key") is None


def test_it_comes_back_under_its_url() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        path = Path(folder) / "redis.sock"
        for _ in range(2):
            with embedded_redis(path) as url, redis.from_url(url) as client:
                assert client.dbsize() == 0
                client.set("key", "value")


@linux_only
def test_kill_9_of_its_user_leaves_nothing() -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None
    folder = socket_of(user.stdout.readline().strip()).parent
    assert processes_with(str(folder))
    user.kill()
    user.communicate()
    eventually(lambda: not processes_with(str(folder)), "guard and server end")
    eventually(lambda: not folder.exists(), "the folder goes")


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    with (
        pytest.raises(TickstockError, match="does not start"),
        embedded_redis(tmp_path / "missing" / "redis.sock"),
    ):
        pass
