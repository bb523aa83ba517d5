"""`r1plus rollback | pin | unpin | pause | resume | ack | refresh`: requests to the operator, in addition to the spec.

Each sets an annotation that says who, when and why; the operator answers it and emits an Event with the same text. A
request that the operator would ignore is rejected here, with what to do instead.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from r1plus_cli.deployment.view import DeploymentView, build_view
from r1plus_cli.errors import CliError, UsageError
from r1plus_contract.requests import MOST_WHY, Request, Verb, build_annotations, format_command, next_order

Json = dict[str, Any]


class ActionCluster(Protocol):
    """What these commands need from a cluster; see `kubernetes_cluster`."""

    def get_deployment(self, namespace: str, name: str) -> Json:
        """Return one R1PlusDeployment. Raise CliError if it does not exist."""

    def get_username(self) -> str:
        """Return the user's name for the API server."""

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        """Merge `patch` into the R1PlusDeployment."""


def request_action(cluster: ActionCluster, namespace: str, name: str, verb: Verb, reason: str, now: datetime) -> str:
    """Request an action and return a sentence about what follows.

    Raises:
        CliError: the action makes no sense now; the message says what to do instead.
        UsageError: the reason is invalid.
    """
    reason_text = normalise_reason(reason)
    body = cluster.get_deployment(namespace, name)
    view = build_view(body)
    if refusal := _REFUSALS[verb](view):
        raise CliError(f"{view.key}: {refusal}")
    at, order = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), next_order(body["metadata"], view.requests)
    request = Request(
        cluster.get_username(), reason_text, at, view.revision, order, str(body["metadata"].get("uid", ""))
    )
    patch: Json = {"metadata": {"annotations": build_annotations(verb, request)}}
    if verb in _SWITCHES:
        patch["spec"] = {"rollout": _SWITCHES[verb]}
    cluster.patch_deployment(namespace, name, patch)
    request_text = f"{view.key}: {verb} requested: {_CONSEQUENCES[verb](view)}"
    return f"{request_text}. Watch it: r1plus status {name} -n {namespace} -w"


def refresh_all(cluster: ActionCluster, bodies: Iterable[Json], reason: str, now: datetime) -> Iterator[str]:
    """Request a refresh of each outdated deployment.

    Yield a sentence for each, also for failures; one if none is outdated.
    """
    views = list(map(build_view, bodies))
    outdated = [view for view in views if _is_outdated(view)]
    if not outdated:
        yield _describe_nothing_outdated(views)
    for view in outdated:
        try:
            yield request_action(cluster, view.namespace, view.name, Verb.REFRESH, reason, now)
        except CliError as error:
            yield f"Not requested: {error}"


def _is_outdated(view: DeploymentView) -> bool:
    return view.runtime is not None and (view.runtime.is_outdated or view.runtime.reason == "RefreshWaits")


def _describe_nothing_outdated(views: Collection[DeploymentView]) -> str:
    current = sum(view.runtime is not None for view in views)
    silent = sum(view.runtime is None for view in views)
    runs = "1 deployment runs" if current == 1 else f"{current} deployments run"
    more = f"; {silent} more {'serves' if silent == 1 else 'serve'} nothing yet" if silent else ""
    return f"Nothing is outdated: {runs} the operator's images{more}"


def normalise_reason(reason: str) -> str:
    """Return the reason in one line. Raise UsageError if it is empty or too long. Needs no cluster."""
    text = " ".join(reason.split())
    if not text or len(text) > MOST_WHY:
        problem = f"has {len(text)} characters, at most {MOST_WHY} are allowed" if text else "is empty"
        raise UsageError(f"--reason: {problem}; give the reason in a sentence, for the next person on call")
    return text


def _format_verb(verb: Verb, view: DeploymentView) -> str:
    return format_command(verb, f"{view.name} -n {view.namespace}")


def _refuse_rollback(view: DeploymentView) -> str:
    if not view.revision:
        return "nothing serves yet, so there is nothing to roll back"
    if view.pinned:
        return f"traffic is pinned; first run {_format_verb(Verb.UNPIN, view)}"
    if view.reason_of("Progressing") == "RollingBack":
        return f"a rollback is already running: {view.condition_message('Progressing')}"
    if not view.last_good:
        blockers = "".join(f"\n  {line}" for line in view.rollback_blockers) or "\n  there is no earlier revision"
        remedy = "Set spec.engine, batch or context to the version you want: it is gated, and an earlier Pass counts"
        return (
            "there is no rollback target. A target must have passed this suite, have carried traffic for"
            f" rollback.bakeSeconds (default 10 min), and no other engine may have its engine's"
            f" name:{blockers}\n{remedy}"
        )
    return ""


def _refuse_pin(view: DeploymentView) -> str:
    if not view.revision:
        return "nothing serves yet, so there is nothing to pin"
    return f"it is already pinned; {_format_verb(Verb.UNPIN, view)} lets traffic move" if view.pinned else ""


def _refuse_unpin(view: DeploymentView) -> str:
    if view.pinned or view.rolled_back:
        return ""
    return "it is not pinned, and nothing was rolled back"


def _refuse_pause(view: DeploymentView) -> str:
    return f"it is already paused; {_format_verb(Verb.RESUME, view)} lets the operator act again" if view.paused else ""


def _refuse_resume(view: DeploymentView) -> str:
    return "" if view.paused else "it is not paused"


def _refuse_ack(view: DeploymentView) -> str:
    if view.incident is not None or (view.runtime and view.runtime.reason == "RefreshFailed"):
        return ""
    return "there is nothing to acknowledge: no accuracy drop, change or rollback is open; see `r1plus status`"


def _refuse_refresh(view: DeploymentView) -> str:
    if view.pinned:
        return f"traffic is pinned; first run {_format_verb(Verb.UNPIN, view)}"
    if view.rolled_back:
        remedy = f"{_format_verb(Verb.ACK, view)} allows it to be gated again; run that first"
        return f"traffic was rolled back from what the spec asks for; {remedy}"
    if not _is_outdated(view):
        return "it already runs the operator's images"
    is_under_way = view.runtime is not None and view.runtime.reason == "RefreshUnderWay"
    return "a candidate is already being rolled out: see `r1plus status`" if is_under_way else ""


_SWITCHES: Final[Mapping[Verb, Json]] = {
    Verb.PIN: {"pinned": True},
    Verb.UNPIN: {"pinned": False},
    Verb.PAUSE: {"paused": True},
    Verb.RESUME: {"paused": False},
}
"""Fields of `spec.rollout` that a verb sets, in addition to its annotation."""
_REFUSALS: Final[Mapping[Verb, Callable[[DeploymentView], str]]] = {
    Verb.ROLLBACK: _refuse_rollback,
    Verb.PIN: _refuse_pin,
    Verb.UNPIN: _refuse_unpin,
    Verb.PAUSE: _refuse_pause,
    Verb.RESUME: _refuse_resume,
    Verb.ACK: _refuse_ack,
    Verb.REFRESH: _refuse_refresh,
}
_CONSEQUENCES: Final[Mapping[Verb, Callable[[DeploymentView], str]]] = {
    Verb.ROLLBACK: lambda view: (
        f"revision {view.last_good} starts without traffic and repeats the golden suite; if it passes, it takes traffic"
        f" and {view.revision} is not redeployed automatically"
    ),
    Verb.PIN: lambda view: (
        f"traffic stays at revision {view.revision}, also after a change of the spec or an accuracy drop"
    ),
    Verb.UNPIN: lambda view: "traffic may move again; the spec is rolled out",
    Verb.PAUSE: lambda view: (
        "the operator changes nothing but the network policies; the platform team may edit Deployments,"
        " Service and PodDisruptionBudget"
    ),
    Verb.RESUME: lambda view: "manual changes are reverted, and the spec is rolled out",
    Verb.ACK: lambda view: (
        "the monitors repeat the gate and end their alarm if it passes; a rolled-back revision may be tried again"
    ),
    Verb.REFRESH: lambda view: (
        "a candidate with the operator's images is gated as soon as its turn comes"
        + (f"; {view.revision} is stopped for that (InPlace)" if view.strategy == "InPlace" else "")
    ),
}
