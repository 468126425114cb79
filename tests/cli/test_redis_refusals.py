"""What a run says when Redis does not serve it: each cause in its own words, with its own cure, and no secret."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import MakeWorld
from tests.cli.world import PASSWORD, World
from tests.servers import TlsFront, redis_server, sentinel

HOUR = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    """The file of the authority that has issued the servers' certificates."""
    authority.cert_pem.write_to_path(path := str(tmp_path / "ca.pem"))
    return path


def serving(certificate: trustme.LeafCert, *, client: trustme.CA | None = None, newest: bool = True) -> ssl.SSLContext:
    """TLS with that certificate; with `client` only for those who have one of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if client is not None:
        client.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def refused(world: World, url: str) -> str:
    """The line of a run at that server."""
    run = world.reconcile(REDIS_URL=url)
    assert (run.code, run.document["error"]) == (4, "state_failed"), run.document
    detail = str(run.document["detail"])
    assert "\n" not in detail
    assert "may or may not" not in detail
    return detail


# --------------------------------------------------------------------------- TLS


@pytest.fixture
def secure(authority: trustme.CA, redis_url: str) -> Iterator[str]:
    """A server behind TLS whose certificate is in order."""
    with TlsFront(redis_url, serving(authority.issue_cert("127.0.0.1"))) as front:
        yield front.url


def test_a_run_through_tls(world: World, secure: str, ca: str) -> None:
    run = world.reconcile(REDIS_URL=f"{secure}?ssl_ca_certs={ca}")
    assert run.code == 0, run.document


def test_an_authority_that_nobody_knows_is_not_trusted(world: World, secure: str) -> None:
    assert "its TLS certificate is not trusted; " in (said := refused(world, secure))
    assert said.endswith("Cure: add ?ssl_ca_certs=FILE to the URL.")


def test_an_expired_certificate(world: World, authority: trustme.CA, redis_url: str, ca: str) -> None:
    now = dt.datetime.now(dt.UTC)
    old = authority.issue_cert("127.0.0.1", not_before=now - 2 * HOUR, not_after=now - HOUR)
    with TlsFront(redis_url, serving(old)) as front:
        said = refused(world, f"{front.url}?ssl_ca_certs={ca}")
    assert "its TLS certificate has expired; " in said
    assert said.endswith("Cure: renew it, or set this machine's clock.")


@pytest.mark.parametrize("name", ["redis.example", "10.1.2.3"])
def test_a_certificate_of_another_host(world: World, authority: trustme.CA, redis_url: str, ca: str, name: str) -> None:
    with TlsFront(redis_url, serving(authority.issue_cert(name))) as front:
        for url in (front.url, front.url.replace("127.0.0.1", "localhost")):
            said = refused(world, f"{url}?ssl_ca_certs={ca}")
            assert "its TLS certificate is for another host name; " in said
            assert said.endswith("Cure: write the name that stands in the certificate into the Redis URL.")


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_file_of_the_url_that_is_missing_or_no_certificate(
    world: World, secure: str, ca: str, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "gone.pem"
    rest = f"&ssl_ca_certs={ca}&ssl_keyfile={path}" if option == "ssl_certfile" else ""
    said = refused(world, f"{secure}?{option}={path}{rest}")
    assert f"the file of {option} is missing: {path}; " in said
    path.write_text("no certificate")
    said = refused(world, f"{secure}?{option}={path}{rest}")
    assert "a file that the URL names holds no certificate or key; " in said


@pytest.mark.parametrize("newest", [True, False], ids=["TLS 1.3", "TLS 1.2"])
def test_a_certificate_of_the_client_is_wanted(
    world: World, authority: trustme.CA, redis_url: str, ca: str, tmp_path: Path, newest: bool
) -> None:
    context = serving(authority.issue_cert("127.0.0.1"), client=authority, newest=newest)
    with TlsFront(redis_url, context) as front:
        said = refused(world, f"{front.url}?ssl_ca_certs={ca}")
        assert "the server wants a certificate of the client; " in said
        assert said.endswith("Cure: add ?ssl_certfile=FILE&ssl_keyfile=FILE to the URL.")
        own = authority.issue_cert("bot")
        own.private_key_and_cert_chain_pem.write_to_path(mine := str(tmp_path / "bot.pem"))
        run = world.reconcile(REDIS_URL=f"{front.url}?ssl_ca_certs={ca}&ssl_certfile={mine}&ssl_keyfile={mine}")
        assert run.code == 0, run.document


def test_a_url_without_tls_to_a_port_with_it(world: World, secure: str) -> None:
    said = refused(world, secure.replace("rediss://", "redis://"))
    assert "the port speaks TLS; " in said
    assert said.endswith("Cure: write rediss:// instead of redis://.")


def test_a_url_with_tls_to_a_port_without_it(world: World, redis_url: str) -> None:
    said = refused(world, redis_url.replace("redis://", "rediss://"))
    assert "the port does not speak TLS; " in said
    assert said.endswith("Cure: use the TLS port, or redis:// where the network is your own.")


# --------------------------------------------------------------------------- who may, and what is there


@pytest.mark.parametrize(
    ("user", "reason", "cure"),
    [
        (":wrong@", "the server refused the user or password", "check the credentials in the Redis URL"),
        (f"nobody:{PASSWORD}@", "the server refused the user or password", "check the credentials in the Redis URL"),
        ("", "the server wants a password", "write it into the Redis URL"),
    ],
)
def test_who_may_not_sign_in(world: World, redis_url: str, user: str, reason: str, cure: str) -> None:
    said = refused(world, redis_url.replace(f":{PASSWORD}@", user))
    assert f"failed: {reason}; " in said
    assert said.endswith(f"Cure: {cure}.")


def test_a_password_that_the_server_does_not_know(world: World) -> None:
    with redis_server() as url:
        said = refused(world, url.replace("redis://", f"redis://:{PASSWORD}@"))
    assert "the server knows no password; " in said
    assert said.endswith("Cure: take it out of the Redis URL.")


@pytest.mark.parametrize("database", [0, 1])
def test_the_port_of_a_sentinel(world: World, database: int) -> None:
    with sentinel() as url:
        said = refused(world, url.replace("/0", f"/{database}"))
    assert "this is a Sentinel, which keeps no data; " in said
    assert "Cure: use the URL of the primary that it watches" in said


def test_a_command_that_the_server_lacks(world: World) -> None:
    with redis_server(None, "--rename-command", "EVAL", "") as url:
        said = refused(world, url)
    assert "the server lacks a command that is needed: EVAL; " in said


def test_a_database_that_is_not_there(world: World, redis_url: str) -> None:
    assert "the server has no database of that number; " in refused(world, redis_url.replace("/0", "/4711"))


def test_a_socket_that_is_not_there(world: World, tmp_path: Path) -> None:
    said = refused(world, f"unix://{tmp_path}/redis.sock")
    assert f"no server listens at the socket {tmp_path}/redis.sock; " in said


def test_a_permission_that_the_state_lacks_is_named(make_world: MakeWorld) -> None:
    """The command, and the keys it was for: of a single command, of a script and inside a transaction."""
    world = make_world()
    pinned = world.reconcile()
    assert pinned.code == 0
    client, url = world.redis, world.redis_url.replace("//:", "//bob:")
    try:
        for missing, named in (
            ("-get", "GET on ghostclean:"),
            ("-eval", "EVAL on ghostclean:"),
            ("-zadd", "ZADD on ghostclean:"),
            ("resetkeys ~ghostclean:* ~trades:*", "on telemetry:reconcile:summary"),
        ):
            client.execute_command(
                "ACL", "SETUSER", "bob", "reset", "on", f">{PASSWORD}", "~*", "+@all", *missing.split()
            )
            detail = str(world.reconcile(REDIS_URL=url).document["detail"])
            assert "the user of the URL lacks a permission (" in detail
            assert named in detail
            assert "Cure: allow it the key and the command in the ACL" in detail
    finally:
        client.execute_command("ACL", "DELUSER", "bob")
