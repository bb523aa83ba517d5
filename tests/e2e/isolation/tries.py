"""Runs inside a pod, with nothing but Python: a list of tries on standard input, how each ended on standard output.

[{"name": ..., "host": ..., "port": ...}]                       a TCP connection
[{..., "method": ..., "path": ..., "body": ..., "headers": {}}]  and a request over it; "tls" for https

Each is tried three times, and was open if it was so once.
"""

import concurrent.futures
import http.client
import json
import socket
import ssl
import sys
from typing import Any

ATTEMPTS, SECONDS = 3, 2.0
ANSWER_SECONDS = 20.0
MOST = 100_000


def main() -> None:
    """Try all at once."""
    tries = json.load(sys.stdin)
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        print(json.dumps(dict(zip([one["name"] for one in tries], pool.map(ended, tries), strict=True))))


def ended(one: dict[str, Any]) -> str:
    """`open ...` or `shut ...`. Open is who connects, whatever comes of it then."""
    said = ""
    for _ in range(ATTEMPTS):
        try:
            sock = socket.create_connection((one["host"], one["port"]), SECONDS)
        except OSError as error:
            said = f"{type(error).__name__} {error}"
            continue
        with sock:
            return f"open {answer(sock, one)}"
    return f"shut {said}"


def answer(sock: socket.socket, one: dict[str, Any]) -> str:
    """What is said over the connection."""
    if "method" not in one:
        return "connected"
    sock.settimeout(ANSWER_SECONDS)
    connection = http.client.HTTPConnection(one["host"], one["port"])
    try:
        connection.sock = ssl._create_unverified_context().wrap_socket(sock) if one.get("tls") else sock
        connection.request(one["method"], one["path"], one.get("body") or None, one.get("headers") or {})
        found = connection.getresponse()
        return f"{found.status} {found.read(MOST).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__} {error}"


if __name__ == "__main__":
    main()
