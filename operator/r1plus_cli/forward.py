"""A loopback port that leads into a pod through the API server, as `kubectl port-forward` makes one.

Called by `r1plus ask`. gRPC wants an address, the `kubernetes` package gives a socket per connection: this joins them.
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
def forwarded(core: Any, namespace: str, pod: str, port: int) -> Iterator[str]:
    """`127.0.0.1:N`, leading to `port` of the pod for as long as the context is open."""
    listener = socket.create_server(("127.0.0.1", 0))
    acceptor = threading.Thread(target=_accept, args=(listener, core, namespace, pod, port), daemon=True)
    acceptor.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # A close alone does not wake the thread that waits in accept.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(timeout=5.0)


def _accept(listener: socket.socket, core: Any, namespace: str, pod: str, port: int) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # The context was left.
        try:
            tunnel = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except (ApiException, HTTPError):
            near.close()  # The pod is gone: the caller's own error says that nothing answers.
            continue
        far = tunnel.socket(port)
        far.setblocking(True)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: Any, sink: Any) -> None:
    """Copy until one side ends, then close both: half-closing means nothing to gRPC."""
    with contextlib.suppress(OSError), contextlib.closing(source), contextlib.closing(sink):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
