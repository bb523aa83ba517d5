"""A loopback port that leads into a pod through the API server, like `kubectl port-forward`.

Called by `r1plus ask`. gRPC needs an address, and the `kubernetes` package returns a socket per connection.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward
from urllib3.exceptions import HTTPError

_CHUNK = 65536


@contextlib.contextmanager
def forward_port(core: Any, namespace: str, pod: str, port: int) -> Iterator[str]:
    """Yield `127.0.0.1:N`, which leads to `port` of the pod while the context is open."""
    listener = socket.create_server(("127.0.0.1", 0))
    acceptor = threading.Thread(target=_accept, args=(listener, core, namespace, pod, port), daemon=True)
    acceptor.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # Closing alone does not wake the thread that waits in accept.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(timeout=5.0)


def _accept(listener: socket.socket, core: Any, namespace: str, pod: str, port: int) -> None:
    while True:
        try:
            local_socket, _ = listener.accept()
        except OSError:
            return  # The context ended.
        try:
            tunnel = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except (ApiException, HTTPError):
            local_socket.close()  # The pod is gone: the caller reports that nothing answers.
            continue
        remote_socket = tunnel.socket(port)
        remote_socket.setblocking(True)
        for source, sink in ((local_socket, remote_socket), (remote_socket, local_socket)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: Any, sink: Any) -> None:
    """Copy until one side ends, then close both: gRPC does not support half-closed connections."""
    with contextlib.suppress(OSError), contextlib.closing(source), contextlib.closing(sink):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
