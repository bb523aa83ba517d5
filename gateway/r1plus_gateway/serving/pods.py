"""The pods of one model: found by DNS, one gRPC channel each, the one with the fewest requests takes the next."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
from tritonclient.grpc import service_pb2

from r1plus_gateway.serving.errors import ModelUnavailableError
from r1plus_gateway.serving.evidence import EvidenceCache, ReportReader
from r1plus_gateway.serving.triton_wire import METHOD, MOST_MESSAGE_BYTES
from r1plus_gateway.settings import ModelSettings

log = logging.getLogger(__name__)

RESOLVER_FILE: Final = Path("/etc/resolv.conf")
RESOLVE_SECONDS: Final = 2.0
AVOID_SECONDS: Final = 2.0
"""For so long a pod that failed is chosen last."""
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),  # bodies are bounded already
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 3000),  # a connection that takes longer has failed
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Each pod has a connection of its own, also where two gateways run in one process.
    ("grpc.use_local_subchannel_pool", 1),
)


class Resolver(Protocol):
    """Finds the addresses of a model's pods."""

    async def __call__(self, host: str, port: int) -> frozenset[str]:
        """Return the addresses; empty where the name has none.

        Raises:
            OSError: the name service does not answer; nothing is known.
        """


async def resolve_service(host: str, port: int) -> frozenset[str]:
    """Resolve a headless Service by the system's resolver. See `Resolver`.

    The name is made absolute. After an answer that did not come, the resolver asks for a name of few dots as it is, and
    takes the NXDOMAIN to that as the answer: while the name server is busy, the model would have no pods.
    """
    try:
        name = qualify_service(host, RESOLVER_FILE.read_text(errors="replace"))
    except OSError:
        name = host
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return frozenset()
        raise
    return frozenset(str(entry[4][0]) for entry in entries)


def qualify_service(host: str, resolver_settings: str) -> str:
    """Return the absolute name of a Service in the cluster's domain; other names, or without a domain, as they are.

    `resolver_settings`: text of resolv.conf, where Kubernetes writes `search NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN`.
    """
    words = [line.split() for line in resolver_settings.splitlines()]
    searched = [domain for line in words if line[:1] == ["search"] for domain in line[1:]]
    names = [one.rstrip(".") for one in searched]
    # A namespace may be named svc: its own entry begins so, too, and follows none that ends with it.
    domain = next(
        (
            one.removeprefix("svc.")
            for one in names
            if one.startswith("svc.") and any(other.endswith(f".{one}") for other in names)
        ),
        "",
    )
    return f"{host}.{domain}." if domain and host.endswith(".svc") else host


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a pod is."""

    address: str
    grpc_port: int
    monitor_port: int
    grpc_socket: str = ""
    """Instead of its gRPC port."""


@dataclass(slots=True, eq=False)
class Pod:
    """One serving pod."""

    address: str
    channel: Any
    evidence: EvidenceCache
    open_stream: Any = field(init=False)
    """The stub of `ModelStreamInfer`."""
    requests: int = 0
    """In flight, from this gateway."""
    avoid_until: float = 0.0
    is_listed: bool = True
    """Whether DNS still names it. Without, it gets no new requests, and running ones go on."""

    def __post_init__(self) -> None:
        self.open_stream = self.channel.stream_stream(
            METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )


class PodPool:
    """The pods of one model."""

    def __init__(
        self,
        model: ModelSettings,
        read_report: ReportReader,
        *,
        resolve: Resolver = resolve_service,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[ModelSettings, int], None] = lambda model, pods: None,
    ) -> None:
        """`on_change` is called with the number of listed pods when it changes."""
        self.model = model
        self._read_report = read_report
        self._resolve = resolve
        self._clock = clock
        self._on_change = on_change
        self._pods: dict[Endpoint, Pod] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._pods)

    def list_pods(self) -> list[Pod]:
        """Return the listed pods."""
        return list(self._pods.values())

    def choose(self, exclude: Pod | None = None) -> Pod:
        """Return the listed pod with the fewest requests in flight; those that failed just now come last.

        Raises:
            ModelUnavailableError: there is none.
        """
        pods = [pod for pod in self._pods.values() if pod is not exclude]
        if not pods:
            raise ModelUnavailableError(f"no pod of {self.model.name} is ready; try again later")
        now = self._clock()
        return min(pods, key=lambda pod: (pod.avoid_until > now, pod.requests))

    def report_failure(self, pod: Pod) -> None:
        """Choose this pod last for a while, and resolve at once."""
        pod.avoid_until = self._clock() + AVOID_SECONDS
        self._wake.set()

    @contextlib.contextmanager
    def occupy(self, pod: Pod) -> Iterator[None]:
        """Count a request of the pod; the channel of a pod that left closes after its last one."""
        pod.requests += 1
        try:
            yield
        finally:
            pod.requests -= 1
            if not pod.is_listed and not pod.requests:
                self.start(_close(pod))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run this as a task that lives until it ends, or until the pool is closed and it has ended."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self) -> None:
        """Resolve every `RESOLVE_SECONDS`, and at once after a failure, until cancelled."""
        while True:
            await self.refresh()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), RESOLVE_SECONDS)

    async def refresh(self) -> None:
        """Resolve once. If the name service does not answer, the pods stay."""
        try:
            endpoints = await self._find_endpoints()
        except OSError as error:
            log.warning("Name of model %s could not be resolved, its pods stay: %s", self.model.name, error)
            return
        before = set(self._pods)
        for endpoint in sorted(endpoints - before):
            self._pods[endpoint] = self._connect(endpoint)
        for endpoint in before - endpoints:
            self._retire(self._pods.pop(endpoint))
        if before != set(self._pods):
            log.info("Model %s has %d pods", self.model.name, len(self._pods))
            self._on_change(self.model, len(self._pods))

    def wake(self) -> None:
        """Resolve at once."""
        self._wake.set()

    async def _find_endpoints(self) -> frozenset[Endpoint]:
        model = self.model
        listed = model.addresses
        addresses = listed if listed is not None else await self._resolve(model.host, model.grpc_port)
        return frozenset(
            Endpoint(address, model.grpc_port, model.monitor_port, model.grpc_socket) for address in addresses
        )

    async def close(self) -> None:
        """Take no new requests; each channel closes after its last one. Waits for all of them."""
        while self._pods:
            self._retire(self._pods.popitem()[1])
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _connect(self, endpoint: Endpoint) -> Pod:
        host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        target = f"unix:{endpoint.grpc_socket}" if endpoint.grpc_socket else f"{host}:{endpoint.grpc_port}"
        channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        evidence = EvidenceCache(f"{host}:{endpoint.monitor_port}", self._read_report, self._clock)
        return Pod(endpoint.address, channel, evidence)

    def _retire(self, pod: Pod) -> None:
        pod.is_listed = False
        if not pod.requests:
            self.start(_close(pod))


async def _close(pod: Pod) -> None:
    await pod.evidence.close()
    await pod.channel.close()
