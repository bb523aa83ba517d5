"""Runs in a pod, as a customer's artifact server: one engine as a tar over https, and the ways in which that goes wrong.

Standard library only: the pod has nothing else. Prints the tars' sha256, signed and unsigned, then each path that is
asked for.
"""

import hashlib
import ssl
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ENGINE, SIGNATURE = Path("/data/engine"), Path("/etc/artifacts/model.sig")
SIGNED, UNSIGNED = Path("/data/signed.tar"), Path("/data/unsigned.tar")
PORT = 8443
SLOW_BYTES_PER_SECOND = 4 * 2**20
PIECE = 256 * 1024


def pack(target: Path, *, signed: bool) -> None:
    """The same files give the same bytes."""
    files = {f"engine/{p.relative_to(ENGINE).as_posix()}": p for p in sorted(ENGINE.rglob("*")) if p.is_file()}
    with tarfile.open(target, "w") as tar:
        for name, path in {**({"model.sig": SIGNATURE} if signed else {}), **files}.items():
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(member, content)


class Handler(BaseHTTPRequestHandler):
    """`/engine.tar`, and what else a server may do."""

    def do_GET(self) -> None:
        print("GET", self.path, flush=True)
        kind = self.path.strip("/").partition("/")[0]
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "https://169.254.169.254/latest/meta-data/")
            self.end_headers()
        elif kind in ("whole", "slow", "half", "tampered"):
            self._send(SIGNED, kind)
        elif kind == "unsigned":
            self._send(UNSIGNED, kind)
        else:
            self.send_error(404)

    def _send(self, tar: Path, kind: str) -> None:
        size = tar.stat().st_size
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        sent = 0
        with tar.open("rb") as content:
            while (piece := content.read(PIECE)) and not (kind == "half" and sent >= size // 2):
                if kind == "tampered" and sent <= size // 2 < sent + len(piece):
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                self.wfile.write(piece)
                sent += len(piece)
                if kind == "slow":
                    time.sleep(len(piece) / SLOW_BYTES_PER_SECOND)

    def log_message(self, format: str, *args: object) -> None:
        """The path is printed already."""


def main() -> None:
    """Pack, say the sha256, serve."""
    for tar in (SIGNED, UNSIGNED):
        pack(tar, signed=tar is SIGNED)
        with tar.open("rb") as content:
            print("sha256", hashlib.file_digest(content, "sha256").hexdigest(), flush=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server = ThreadingHTTPServer(("", PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
