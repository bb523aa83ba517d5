"""A forward proxy on loopback: it passes on what is sent through CONNECT, and does not look into it."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy:
    """`asked` are the HOST:PORT of the tunnels; `status` is answered to CONNECT; `leads` are ports that lead to others."""

    def __init__(self, url: str, leads: Mapping[int, int]) -> None:
        self.url, self.leads = url, leads
        self.asked: list[str] = []
        self.status = 200


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Copy until either side ends."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxying(leads: Mapping[int, int] | None = None) -> Iterator[Proxy]:
    """Pass on until the end of the block. All names are this machine's; `leads` maps ports asked for to those reached."""

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            proxy.asked.append(self.path)
            self.send_response(proxy.status)
            self.end_headers()
            if proxy.status != 200:
                return
            port = int(self.path.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", proxy.leads.get(port, port))) as server:
                back = threading.Thread(target=_pass_on, args=(server, self.connection), daemon=True)
                back.start()
                _pass_on(self.connection, server)
                back.join()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}", leads or {})
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
