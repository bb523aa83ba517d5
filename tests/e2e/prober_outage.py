"""A prober that is killed or hangs, under traffic."""

from dataclasses import dataclass

from e2e import story
from e2e.asking import Asker
from e2e.inside import monitor_report, signal_prober
from e2e.kube import Kube
from e2e.story import Name
from e2e.target import Target
from e2e.waiting import wait_for
from r1plus_contract.names import PORT_GRPC


@dataclass(frozen=True, slots=True)
class ProberOutage:
    """What came of a prober that was killed or stopped."""

    pods: tuple[str, str]
    """The pod in traffic before, and afterwards."""
    failures: list[str]
    """Requests that failed meanwhile."""


def prober_outage(target: Target, name: Name, signal: str) -> ProberOutage:
    """Send the signal to the prober of the pod in traffic, and ask all the time until it was started again."""
    kube = target.kube
    pod = story.until_pod(kube, name)
    before = monitor_report(kube, name.namespace, pod)["proberRestarts"]
    with target.reach(name.namespace, name.name, PORT_GRPC) as address, Asker(address) as asker:
        assert signal_prober(kube, name.namespace, pod, signal)
        wait_for(lambda: _restarted(kube, name, pod, before), f"{name}'s prober is started again", period_s=1.0)
        asker.more_answers()
    return ProberOutage((pod, story.until_pod(kube, name)), asker.failures)


def _restarted(kube: Kube, name: Name, pod: str, before: int) -> bool:
    try:
        return monitor_report(kube, name.namespace, pod)["proberRestarts"] > before
    except RuntimeError:
        return False  # The prober serves /verdict: while it is away nobody answers.
