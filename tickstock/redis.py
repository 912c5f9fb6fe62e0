"""Redis: the channels of the contract, and a client that says plainly when Redis is not there.

`tickstock_data` carries every stored bar, `tickstock_patterns` every event. Redis is optional, and
never holds anything up: the database is the record.
"""

import redis
from redis.exceptions import RedisError

from tickstock.errors import TickstockError

DATA_CHANNEL = "tickstock_data"
PATTERNS_CHANNEL = "tickstock_patterns"

__all__ = ["DATA_CHANNEL", "PATTERNS_CHANNEL", "RedisError", "client", "require"]


def client(url: str) -> redis.Redis:
    """A client that connects when first used. TickstockError for a URL that is none."""
    try:
        return redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5)
    except ValueError as error:
        raise TickstockError(
            f"--redis-url (TICKSTOCK_REDIS_URL) can't be read: {error}. "
            "Expected something like redis://host:6379/0"
        ) from error


def require(url: str) -> redis.Redis:
    """A client whose server answers. TickstockError where none does."""
    connection = client(url)
    try:
        connection.ping()
    except RedisError as error:
        raise TickstockError(
            f"no Redis at {_where(url)}: {str(error).splitlines()[0]}. Start it, or correct "
            "--redis-url (TICKSTOCK_REDIS_URL); without one, tickstock does without Redis."
        ) from error
    return connection


def _where(url: str) -> str:
    """The URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
