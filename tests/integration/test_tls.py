"""TLS on the listeners: their certificates, those of clients, and a change of both while connections are open."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import Authority
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from inside import call, serving
from litestar import Litestar, get
from outside import Gapless

from gapless.bootstrap.tls import Certificates, TlsFiles, TlsInvalid, read_context
from gapless.connections.register import Connections
from gapless.daemon.listeners import Listener
from gapless.metrics import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    """Another authority."""
    return Authority()


def write(folder: Path, name: str, authority: Authority, *, of_client: bool = False) -> tuple[Path, Path]:
    """Write a certificate and its key, each file replaced at once; return their paths."""
    chain, key = authority.leaf("localhost", of_client=of_client)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    paths = (folder / f"{name}.pem", folder / f"{name}-key.pem")
    for path, content in zip(paths, (chain, pem), strict=True):
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return paths


def trusting(authority: Authority, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that trusts `authority` alone."""
    context = ssl.create_default_context(cadata=authority.root_pem().decode())
    if client is not None:
        context.load_cert_chain(*client)
    return context


@asynccontextmanager
async def listening(files: TlsFiles, **options: Any) -> AsyncIterator[tuple[str, Certificates]]:
    @get("/")
    async def hello() -> str:
        return "hello"

    certificates = Certificates(files)
    app = Litestar([hello], openapi_config=None, logging_config=None)
    listener = Listener(
        app, "127.0.0.1", 0, Connections("public", Metrics("test")), certificates=certificates, **options
    )
    running = asyncio.create_task(listener.run())
    await listener.started()
    try:
        yield listener.address.replace("127.0.0.1", "localhost"), certificates
    finally:
        listener.stop()
        await running


def files_in(folder: Path, certificate: tuple[Path, Path], client_ca: Authority | None = None) -> TlsFiles:
    path = None
    if client_ca is not None:
        path = folder / "clients.pem"
        path.write_bytes(client_ca.root_pem())
    return TlsFiles(listener="public", certificate=certificate[0], key=certificate[1], client_ca=path)


async def ask(url: str, context: ssl.SSLContext) -> str:
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        return (await client.get(url)).text


async def test_a_certificate_changes_without_a_dropped_connection(
    tmp_path: Path, ours: Authority, theirs: Authority
) -> None:
    files = files_in(tmp_path, write(tmp_path, "server", ours))
    async with listening(files) as (url, certificates), httpx.AsyncClient(verify=trusting(ours)) as open_client:
        assert url.startswith("https://")
        assert (await open_client.get(url)).text == "hello"
        assert not certificates.reload_if_changed()
        write(tmp_path, "server", theirs)
        assert certificates.reload_if_changed()
        assert (await open_client.get(url)).text == "hello"  # the same connection, with the certificate of before
        assert await ask(url, trusting(theirs)) == "hello"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(url, trusting(ours))


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one(
    tmp_path: Path, ours: Authority, caplog: Any
) -> None:
    files = files_in(tmp_path, write(tmp_path, "server", ours))
    async with listening(files) as (url, certificates):
        files.certificate.write_text("nonsense")
        assert not certificates.reload_if_changed()
        assert not certificates.reload_if_changed()
        assert [each.message for each in caplog.records] == ["certificate_not_replaced"]
        assert await ask(url, trusting(ours)) == "hello"


async def test_with_a_client_ca_only_its_clients_get_in_and_it_changes_too(
    tmp_path: Path, ours: Authority, theirs: Authority
) -> None:
    files = files_in(tmp_path, write(tmp_path, "server", ours), client_ca=ours)
    mine, foreign = (write(tmp_path, name, by, of_client=True) for name, by in (("mine", ours), ("foreign", theirs)))
    async with listening(files) as (url, certificates):
        assert await ask(url, trusting(ours, mine)) == "hello"
        for refused in (None, foreign):
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                await ask(url, trusting(ours, refused))
        assert files.client_ca is not None
        files.client_ca.write_bytes(theirs.root_pem())
        assert certificates.reload_if_changed()
        assert await ask(url, trusting(ours, foreign)) == "hello"
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            await ask(url, trusting(ours, mine))


async def test_a_client_that_begins_no_handshake_is_cut(tmp_path: Path, ours: Authority) -> None:
    files = files_in(tmp_path, write(tmp_path, "server", ours))
    async with listening(files, handshake_s=0.2) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        assert await asyncio.wait_for(reader.read(), 20) == b""  # asyncio would wait for a minute
        writer.close()


def test_an_old_version_of_tls_is_refused(tmp_path: Path, ours: Authority) -> None:
    context = read_context(files_in(tmp_path, write(tmp_path, "server", ours)))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used_are_told_by_their_option(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    certificate, key = write(tmp_path, "server", ours)
    _, other_key = write(tmp_path, "other", theirs)
    for files, message in (
        ((tmp_path / "none.pem", key, None), r"public: none\.pem cannot be read \(No such file"),
        ((certificate, other_key, None), "public: option certificate or certificate_key cannot be used"),
        ((certificate, None, None), "public: option certificate cannot be used"),
        ((certificate, key, key), "public: option client_ca cannot be used"),
    ):
        names = dict(zip(("certificate", "key", "client_ca"), files, strict=True))
        with pytest.raises(TlsInvalid, match=message):
            read_context(TlsFiles(listener="public", **names))


async def test_commands_reach_a_daemon_with_tls(tmp_path: Path, ours: Authority, theirs: Authority) -> None:
    """The private listener wants certificates of clients, which commands on this machine do not have."""
    certificate, key = write(tmp_path, "server", ours)
    clients, mine = tmp_path / "clients.pem", write(tmp_path, "mine", theirs, of_client=True)
    clients.write_bytes(theirs.root_pem())
    environment = {"GAPLESS_PRIVATE__CLIENT_CA": str(clients)}
    for listener in ("PUBLIC", "PRIVATE"):
        environment[f"GAPLESS_{listener}__CERTIFICATE"] = str(certificate)
        environment[f"GAPLESS_{listener}__CERTIFICATE_KEY"] = str(key)
    url = f"sqlite:///{tmp_path}/gapless.db"
    gapless = Gapless(folder=tmp_path, store_url=url, api="http://127.0.0.1:9", environment=environment)
    async with serving(gapless):
        public = f"https://localhost:{gapless.public_port}/healthz"
        private = f"https://localhost:{gapless.private_port}/livez"
        assert await ask(public, trusting(ours)) == "ok\n"
        assert await ask(private, trusting(ours, mine)) == "ok\n"
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            await ask(private, trusting(ours))
        made = await call(gapless, "token", "create", "see", "--role", "viewer", "--expires", "90d")
        assert (made.exit_code, made.stdout.startswith("gapless_")) == (0, True), made.output
