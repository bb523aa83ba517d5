"""Pods that have a revision's labels and were not made by its Deployment. First step of a pass."""

from collections.abc import Mapping
from dataclasses import replace

from r1plus_operator.plan.observation import Observation
from r1plus_operator.plan.revision.record import Revision


def split_foreign_pods(observed: Observation, revisions: Mapping[str, Revision]) -> Observation:
    """Return what was observed with only the revisions' own pods in `pods`; the others are in `foreign_pods`.

    Anyone who may create pods in the namespace can label one as ours and answer for its monitor.
    """
    pods = observed.pods
    own = frozenset().union(*(revision.own_pods(pods) for revision in revisions.values()))
    foreign_pods = tuple(pod for pod in pods if pod not in own)
    return replace(observed, pods=tuple(pod for pod in pods if pod in own), foreign_pods=foreign_pods)
