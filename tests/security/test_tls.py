"""Database and Redis prove who they are, or nothing is sent to them. The feed: tests/feed."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.e2e.program import run
from tests.feed.test_opening import make_certificate
from tickstock.db.connection import connect, tls
from tickstock.embedded.redis import embedded_redis
from tickstock.errors import DatabaseUnavailableError, TickstockError
from tickstock.redis import require

from .tls_proxy import TlsProxy

HOST = "db.example"
PASSWORD = "pa55-w0rd"  # noqa: S105 - it opens nothing


class Certificate:
    """A self-signed certificate for HOST and this machine's address, and a server's context of it."""

    def __init__(self, folder: Path) -> None:
        self.file, key = make_certificate(folder, f"DNS:{HOST},IP:127.0.0.1")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.file, key)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("PGHOST", "PGSSLMODE", "PGSSLROOTCERT", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # whose .postgresql is empty


def served(url: str, context: ssl.SSLContext | None) -> TlsProxy:
    folder = conninfo_to_dict(url)["host"]
    port = conninfo_to_dict(url).get("port") or 5432
    return TlsProxy(f"{folder}/.s.PGSQL.{port}", context, postgres=True)


def elsewhere(url: str, proxy: TlsProxy, host: str = HOST, **parameters: str) -> str:
    """The same database behind the proxy, as if it were on another machine."""
    return make_conninfo(
        url, host=host, hostaddr="127.0.0.1", port=proxy.port, password=PASSWORD, **parameters
    )


def refusal(url: str) -> str:
    with pytest.raises(DatabaseUnavailableError) as told:
        connect(url, program="test")
    assert "\n" not in told.value.message
    assert PASSWORD not in told.value.message
    return told.value.message


def test_a_database_elsewhere_must_prove_who_it_is(
    url: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = str(certificate.file)
    with served(url, certificate.tls) as proxy:
        message = refusal(elsewhere(url, proxy))
        assert message.startswith(f"no safe connection to the database at {HOST}:{proxy.port}, ")
        assert "certificate verify failed" in message
        assert "sslrootcert=FILE in the URL, or PGSSLROOTCERT" in message
        assert "does not match host name" in refusal(
            elsewhere(url, proxy, "other.example", sslrootcert=ca)
        )
        for safe in (elsewhere(url, proxy, sslrootcert=ca),):
            with connect(safe, program="test") as conn:
                assert conn.pgconn.ssl_in_use
        monkeypatch.setenv("PGSSLROOTCERT", ca)
        with connect(elsewhere(url, proxy), program="test") as conn:
            assert conn.pgconn.ssl_in_use
        # And by the command line, psql included.
        settings = {"TICKSTOCK_DATABASE_URL": elsewhere(url, proxy)}
        done = run("db", "status", **settings)
        assert done.returncode == 3, done
        assert len(done.stderr.splitlines()) == 1
        assert "no safe connection" in done.stderr
        assert run("db", "status", PGSSLROOTCERT=ca, **settings).returncode == 0
        monkeypatch.setenv("PGSSLROOTCERT", str(certificate.file.with_name("no-such")))
        assert "no safe connection" in refusal(elsewhere(url, proxy))


def test_what_the_settings_say_of_encryption_stands(
    url: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(url, certificate.tls) as proxy:
        with connect(elsewhere(url, proxy, sslmode="require"), program="test") as conn:
            assert conn.pgconn.ssl_in_use
        with connect(elsewhere(url, proxy, sslmode="disable"), program="test") as conn:
            assert not conn.pgconn.ssl_in_use
    with served(url, None) as proxy:
        message = refusal(elsewhere(url, proxy))
        assert "server does not support SSL, but SSL was required" in message
        assert "disable: no encryption" in message
        monkeypatch.setenv("PGSSLMODE", "prefer")
        with connect(elsewhere(url, proxy), program="test") as conn:
            assert not conn.pgconn.ssl_in_use


@pytest.mark.parametrize(
    ("given", "local"),
    [
        ({}, True),
        ({"host": "/run/postgresql"}, True),
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.2"}, True),
        ({"host": "::1"}, True),
        ({"host": "/run/postgresql,localhost"}, True),
        ({"host": "localhost,db.example"}, False),
        ({"host": "db"}, False),
        ({"host": "10.0.0.5"}, False),
        ({"hostaddr": "10.0.0.5"}, False),
        ({"host": "localhost.example.com"}, False),
        ({"host": "127.0.0.1.example.com"}, False),
    ],
)
def test_which_servers_are_elsewhere(given: dict[str, str], local: bool) -> None:
    assert (tls(given) == {}) == local
    if not local:
        assert tls(given)["sslmode"] == "verify-full"
        assert tls({**given, "sslrootcert": "file"}) == {"sslmode": "verify-full"}
        assert tls({**given, "sslmode": "prefer"}) == {}


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


def test_redis_proves_who_it_is(redis_url: str, certificate: Certificate) -> None:
    target = urlsplit(redis_url)
    where = target.path if target.scheme == "unix" else (target.hostname, target.port or 6379)
    with TlsProxy(where, certificate.tls) as proxy:  # type: ignore[arg-type]
        url = f"rediss://:{PASSWORD}@127.0.0.1:{proxy.port}/0"
        with pytest.raises(TickstockError) as told:
            require(url)
        message = told.value.message
        assert message.startswith(f"no Redis at rediss://127.0.0.1:{proxy.port}/0: ")
        assert "certificate" in message
        assert "?ssl_ca_certs=FILE" in message
        assert "\n" not in message
        assert PASSWORD not in message
        trusted = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate.file}"
        assert require(trusted).ping()
