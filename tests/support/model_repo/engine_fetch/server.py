"""An https server on loopback with a CA of its own, whose answers a test decides."""

import functools
import io
import ssl
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from devcluster.pki import Authority

Answer = Callable[[BaseHTTPRequestHandler], None]


def tar_of(files: Mapping[str, bytes], mode: str = "w:") -> bytes:
    """Return a tar of these files; its compression is fast, not small."""
    buffer = io.BytesIO()
    fast = {"w:gz": {"compresslevel": 1}, "w:bz2": {"compresslevel": 1}, "w:xz": {"preset": 0}}.get(mode, {})
    with tarfile.open(fileobj=buffer, mode=mode, **fast) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def gives(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer with this body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class Server:
    """`answers` maps paths to what is said there; `ca` vouches for it."""

    def __init__(self, url: str, ca: str) -> None:
        self.url, self.ca = url, ca
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []


@functools.cache
def _identity() -> tuple[ssl.SSLContext, str]:
    """Return what the server shows, and the certificate of the CA that vouches for it: made once per process."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        authority.ensure()
        issued = authority.issue("server", "server", hosts=["localhost", "127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        return context, authority.certificate.read_text()


@contextmanager
def serving() -> Iterator[Server]:
    """Serve until the end of the block."""
    context, ca = _identity()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            told.answers[self.path](self)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    told = Server(f"https://localhost:{server.server_port}", ca)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
