"""A program of another user that tries to listen at a port of ours. Who is not root has no other user."""

import asyncio
import sys

_SCRIPT = """
import os, socket, sys
if os.getuid() == 0:
    os.setuid(65534)
host, port = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        listener.bind((host, port))
        listener.listen()
        print("it listens")
    except OSError as error:
        print(error.strerror)
"""


async def try_to_listen(host: str, port: int) -> str:
    """Return what came of it: `it listens`, or why not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SCRIPT, host, str(port), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().strip()
