"""Redis: the channels of the contract, and a client that says plainly when Redis is not there.

`tickstock_data` carries every stored bar, `tickstock_minutes` every minute that is complete,
`tickstock_patterns` every change of an event, which the stream `tickstock_events` keeps for a while.
Redis is optional, and never holds anything up: the database is the record.
"""

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tickstock.errors import TickstockError

DATA_CHANNEL = "tickstock_data"
MINUTES_CHANNEL = "tickstock_minutes"
PATTERNS_CHANNEL = "tickstock_patterns"
EVENTS_STREAM = "tickstock_events"
EVENTS_KEPT = 100_000
"""Entries of the stream, or a few more: about 40 MB of Redis. Older ones are in the table."""

__all__ = [
    "DATA_CHANNEL", "EVENTS_KEPT", "EVENTS_STREAM", "MINUTES_CHANNEL", "PATTERNS_CHANNEL", "RedisError",
    "client", "require",
]  # fmt: skip


def client(url: str) -> redis.Redis:
    """A client that connects when first used. TickstockError for a URL that is none."""
    try:
        connection = redis.Redis.from_url(
            url,
            socket_connect_timeout=5,
            socket_timeout=5,
            # At once, for a connection gone stale. Who waits for a server does so interruptibly.
            retry=Retry(NoBackoff(), 1),
        )
        connection.connection_pool.make_connection()  # else unknown options show at the first use
    except (TypeError, ValueError):
        # What redis-py says may quote a password.
        raise TickstockError(
            "--redis-url (TICKSTOCK_REDIS_URL) can't be read; expected something like "
            "redis://user:password@host:6379/0, with special characters percent-encoded"
        ) from None
    return connection


def require(url: str) -> redis.Redis:
    """A client whose server answers. TickstockError where none does."""
    connection = client(url)
    try:
        connection.ping()
    except RedisError as error:
        gist = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if "certificate" in gist.lower():
            raise TickstockError(
                f"no Redis at {_where(url)}: its TLS certificate is not trusted ({gist}). Give the CA "
                "that signed it: add ?ssl_ca_certs=FILE to --redis-url (TICKSTOCK_REDIS_URL)"
            ) from error
        raise TickstockError(
            f"no Redis at {_where(url)}: {gist}. Start it, or correct "
            "--redis-url (TICKSTOCK_REDIS_URL); without one, tickstock does without Redis."
        ) from error
    return connection


def _where(url: str) -> str:
    """The URL without user, password and options."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
