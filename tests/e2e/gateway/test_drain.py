"""Streams of minutes and short requests while pods of the model leave, and name servers keep old answers for half a minute.

`make e2e STORY=gateway`. The model has two pods, and both run streams when one of them is evicted, when the model is scaled down, and
when another revision takes the traffic.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from e2e import gateways, story
from e2e.command_line import run_r1plus
from e2e.gateway.conftest import NAMESPACE, ServedTenant
from e2e.gateways import ApiKey, GatewayAsker
from e2e.kube import Kube
from e2e.story import Name
from e2e.tenants import in_container
from e2e.waiting import wait_for
from r1plus_contract.gateway import PORT_INTERNAL
from r1plus_contract.metrics import ENGINE_RUNNING_REQUESTS, GATEWAY_PODS
from r1plus_contract.names import PORT_TRITON_METRICS
from r1plus_operator.plan.podspec.pod import GRACE_SECONDS

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(3600)]

LONG = "long"
STREAMS = 8
STREAM_TOKENS = 1900
STREAM_SECONDS = 1800
"""The streams take some two minutes on two idle cores."""
PROBES = 1
"""Requests that a monitor runs at a time beside those of users."""
READ_ENGINE = (
    f"exec 3<>/dev/tcp/127.0.0.1/{PORT_TRITON_METRICS}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
)
READ_GATEWAY = (
    f"from urllib.request import urlopen as get; print(get('http://127.0.0.1:{PORT_INTERNAL}/metrics').read().decode())"
)


@pytest.fixture(scope="module")
def slow_names(served: ServedTenant) -> Iterator[None]:
    """Name servers as kubeadm sets them up: an answer is up to 30 s old, and is kept for 30 s."""
    kube = served.kube
    found = kube.get("configmaps", "kube-system", "coredns")
    assert found is not None
    before = found["data"]["Corefile"]
    slow = before.replace("cache 5", "cache 30").replace("ttl 5", "ttl 30")
    assert slow.count("30") == 2
    _configure_names(kube, slow)
    yield
    _configure_names(kube, before)


@pytest.fixture(scope="module")
def long(served: ServedTenant, slow_names: None) -> Iterator[Name]:
    """A model with two pods, room for long answers, and a revision to go back to."""
    tenant = served.tenant
    accuracy = (served.kube.get("r1plusdeployments", NAMESPACE, served.name.name) or {})["spec"]["accuracy"]
    name = tenant.apply(LONG, "edge", accuracy=accuracy, context={"maxTokens": 2048}, replicas=2)
    first = tenant.until_ready(name)
    tenant.change(name, context={"maxTokens": 2040})
    wait_for(lambda: story.serving_revision(served.kube, name) != first, "there is a revision to go back to")
    yield name
    served.kube.delete("r1plusdeployments", NAMESPACE, LONG)


Event = Callable[[ServedTenant, Name, str], None]
"""Something that makes pods leave, which has begun when it returns; the text names one of the pods."""


def drain_node(served: ServedTenant, name: Name, pod: str) -> None:
    """Evict a pod, as a drain of its node does."""
    gateways.evict(served.kube, NAMESPACE, pod)
    wait_for(lambda: pod in _list_leaving(served.kube, name), "the pod leaves")


def scale_down(served: ServedTenant, name: Name, pod: str) -> None:
    """Ask for one pod."""
    served.tenant.change(name, replicas=1)
    wait_for(lambda: _list_leaving(served.kube, name), "a pod leaves")


def roll_back(served: ServedTenant, name: Name, pod: str) -> None:
    """Give the traffic to the revision before."""
    before = story.serving_revision(served.kube, name)
    run_r1plus(served.kube, "rollback", name.name, "-n", NAMESPACE, "--reason", "a test")
    wait_for(lambda: story.serving_revision(served.kube, name) != before, "traffic moves", served.tenant.evidence(name))


EVENTS: dict[str, Event] = {
    "a node is drained": drain_node,
    "it is scaled down": scale_down,
    "another revision takes the traffic": roll_back,
}


@pytest.mark.parametrize("happen", EVENTS.values(), ids=EVENTS)
def test_no_stream_is_cut_and_no_request_fails_when(
    served: ServedTenant, long: Name, url: str, key: ApiKey, happen: Event
) -> None:
    kube = served.kube
    served.tenant.change(long, replicas=2)
    served.tenant.until_ready(long)
    wait_for(lambda: _count_known_pods(kube, long) == 2, "the gateway knows two pods")
    with gateways.open_client(url, key.secret) as client:
        gateways.until_verified(client, kube, long)
    good = {story.serving_revision(kube, long), ""}

    with served.asker(url, key, model=LONG) as short, _streams(served, url, key) as streams:
        pods = wait_for(lambda: _find_two_busy_pods(kube, long), "both pods run streams", lambda: _describe(streams))
        happen(served, long, pods[0])
        happened_at = time.monotonic()
        assert not any(stream.asked for stream in streams), "the streams were too short to run during the event"
        wait_for(
            lambda: all(stream.asked for stream in streams),
            "all streams end",
            lambda: _describe(streams),
            seconds=STREAM_SECONDS,
        )
        outlived = time.monotonic() - happened_at
        short.more_answers()
    good.add(story.serving_revision(kube, long))
    wait_for(lambda: not _list_leaving(kube, long), "pods without streams go")

    print(
        f"short answers: {short.summary()}\nstreams, the last {outlived:.0f} s after the event:\n{_describe(streams)}"
    )
    assert short.failures == []
    assert [stream.failures for stream in streams] == [[]] * STREAMS
    assert short.revisions | {revision for stream in streams for revision in stream.revisions} <= good
    assert outlived > GRACE_SECONDS, "the streams were too short to be cut by a pod that does not wait for them"


@contextmanager
def _streams(served: ServedTenant, url: str, key: ApiKey) -> Iterator[list[GatewayAsker]]:
    """Run long streams, each once."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                served.stream_asker(url, key, model=LONG, max_tokens=STREAM_TOKENS, pause_s=threading.TIMEOUT_MAX)
            )
            for _ in range(STREAMS)
        ]


def _describe(streams: list[GatewayAsker]) -> str:
    return "\n".join(stream.summary() for stream in streams)


def _find_two_busy_pods(kube: Kube, name: Name) -> list[str] | None:
    pods = [pod["metadata"]["name"] for pod in kube.pods_of(name.namespace, name.name) if gateways.is_up(pod)]
    return pods if len(pods) == 2 and all(_count_requests(kube, name, pod) > PROBES for pod in pods) else None


def _count_requests(kube: Kube, name: Name, pod: str) -> float:
    """Return how many requests the pod's engine runs, the monitor's probes included."""
    shown = in_container(kube, name, pod, "triton", "/bin/bash", "-c", READ_ENGINE)
    return _read_sample(shown, ENGINE_RUNNING_REQUESTS)


def _count_known_pods(kube: Kube, name: Name) -> float:
    """Return to how many pods of the model the gateway gives requests; these run, and DNS names them."""
    (gateway,) = gateways.gateway_pods(kube, NAMESPACE)
    shown = in_container(kube, name, gateway["metadata"]["name"], "gateway", "python3", "-c", READ_GATEWAY)
    return _read_sample(shown, f'{GATEWAY_PODS}{{model="{name.name}"}}')


def _read_sample(shown: str, series: str) -> float:
    """Return a value of metrics as text; of several series the first; 0 while there is none."""
    found = re.search(rf"^{re.escape(series)}\S* (\S+)$", shown, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _list_leaving(kube: Kube, name: Name) -> set[str]:
    pods = kube.pods_of(name.namespace, name.name)
    return {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" in pod["metadata"]}


def _configure_names(kube: Kube, corefile: str) -> None:
    """Give CoreDNS another configuration, and wait until only pods with it run."""
    kube.patch("configmaps", "kube-system", "coredns", {"data": {"Corefile": corefile}})
    for words in (("restart",), ("status", "--timeout=300s")):
        kube.kubectl("rollout", words[0], "deployment/coredns", "-n", "kube-system", *words[1:])
