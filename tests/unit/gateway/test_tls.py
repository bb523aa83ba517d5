"""TLS of the server: the certificate is read again when a new one is mounted."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from devcluster.pki import Authority
from r1plus_gateway.http.listening import connections
from r1plus_gateway.http.listening.tls import ServerCertificate
from r1plus_gateway.settings import SettingsError, TlsPaths
from support.gateway.access import KEY
from support.gateway.fake_triton import Gated
from support.gateway.rig import running
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts


class Mount:
    """The files of a Secret."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths = TlsPaths(str(folder / "tls.crt"), str(folder / "tls.key"))
        self.authority = self.renew("first")

    def renew(self, name: str, *, has_key: bool = True) -> Authority:
        """Mount a certificate of another authority, with its key or before it."""
        self.authority = Authority(self._folder / name)
        self.authority.ensure()
        self._identity = self.authority.issue("server", "server", hosts=["127.0.0.1"])
        _replace(self.paths.certificate, self._identity.certificate)
        if has_key:
            self.mount_key()
        return self.authority

    def mount_key(self) -> None:
        """Mount the key of the certificate."""
        _replace(self.paths.key, self._identity.key)


def _replace(target: str, source: Path) -> None:
    new = Path(f"{target}.new")
    new.write_bytes(source.read_bytes())
    new.rename(target)


def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


async def is_accepted(context: ssl.SSLContext, port: int) -> bool:
    """Return whether a client that trusts this finds its server."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except ssl.SSLCertVerificationError:
        return False
    writer.close()
    return True


async def test_a_new_certificate_is_used_and_half_of_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount = Mount(tmp_path)
    certificate = ServerCertificate(mount.paths)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=certificate.context) as server:
        port = server.sockets[0].getsockname()[1]
        first = trust(mount.authority)
        assert await is_accepted(first, port)
        second = trust(mount.renew("second", has_key=False))
        certificate.refresh()
        assert "last good one stays" in caplog.text
        assert await is_accepted(first, port)
        mount.mount_key()
        certificate.refresh()
        assert await is_accepted(second, port)
        assert not await is_accepted(first, port)


def test_without_a_certificate_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="mount a PEM certificate"):
        ServerCertificate(TlsPaths(str(tmp_path / "a"), str(tmp_path / "b")))


async def test_a_client_that_leaves_over_tls_cancels(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    tls = {"tls": {"certificate": mount.paths.certificate, "key": mount.paths.key}}
    async with running(tmp_path, Gated(("a",)), settings=tls) as rig:
        context = trust(mount.authority)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port, ssl=context)
        body = b'{"model":"credit","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await rig.until_running(1)
        writer.close()
        await rig.until_running(0)
        await rig.until_settled()


async def test_handshakes_that_do_not_end_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten clients that send nothing three are waited for; once they are gone, a client of TLS is accepted."""
    monkeypatch.setattr(connections, "MOST_HANDSHAKES_OF_PEER", 3)
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 600.0)
    mount = Mount(tmp_path)
    settings = {"tls": {"certificate": mount.paths.certificate, "key": mount.paths.key}}
    async with running(tmp_path, Gated(("a",)), settings=settings) as rig:
        # All have connected before the gateway accepts the first.
        silent = [socket.create_connection(("127.0.0.1", rig.gateway.port)) for _ in range(10)]
        clients = [await asyncio.open_connection(sock=one) for one in silent]
        await eventually(lambda: sum(reader.at_eof() for reader, _ in clients) == 7, "seven are closed at once")
        assert not await is_answered(mount.authority, rig.gateway.port)
        for _, writer in clients:
            writer.close()
        await eventually(lambda: is_answered(mount.authority, rig.gateway.port), "a client of TLS is accepted")


async def test_a_handshake_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.1)
    mount = Mount(tmp_path)
    settings = {"tls": {"certificate": mount.paths.certificate, "key": mount.paths.key}}
    async with running(tmp_path, Gated(("a",)), settings=settings) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway.port)
        await eventually(reader.at_eof, "it is closed")
        writer.close()


async def is_answered(authority: Authority, port: int) -> bool:
    """Return whether a client of TLS gets an answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust(authority))
    except OSError:
        return False
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    got = await reader.read()
    writer.close()
    return got.startswith(b"HTTP/1.1 200")
