"""`r1plus rollback | pin | unpin | pause | resume | ack | refresh`: what people ask of the operator, beside the spec.

Each leaves an annotation that says who, when and why; the operator answers it and leaves an Event of the same words.
What the operator would pass over is refused here, with what to do instead.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.view import DeploymentView, view_of
from r1plus_contract.requests import MOST_WHY, Request, Verb, format_command, next_order, written

Json = dict[str, Any]


class Steered(Protocol):
    """What steering needs of a cluster; `kubernetes_cluster` has it."""

    def deployment(self, namespace: str, name: str) -> Json:
        """One R1PlusDeployment; CliError if there is none."""

    def who(self) -> str:
        """The user, as the API server calls him."""

    def change(self, namespace: str, name: str, patch: Json) -> None:
        """Merge `patch` into the R1PlusDeployment."""


def steer(cluster: Steered, namespace: str, name: str, verb: Verb, reason: str, now: datetime) -> str:
    """Ask for it; what follows, in a sentence.

    Raises:
        CliError: it makes no sense now; says what to do instead.
        UsageError: a reason that is none.
    """
    why = checked(reason)
    body = cluster.deployment(namespace, name)
    view = view_of(body)
    if refusal := _REFUSALS[verb](view):
        raise CliError(f"{view.key}: {refusal}")
    at, order = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), next_order(body["metadata"], view.requests)
    request = Request(cluster.who(), why, at, view.revision, order, str(body["metadata"].get("uid", "")))
    patch: Json = {"metadata": {"annotations": written(verb, request)}}
    if verb in _SWITCHES:
        patch["spec"] = {"rollout": _SWITCHES[verb]}
    cluster.change(namespace, name, patch)
    asked = f"{view.key}: {verb} is asked of the operator: {_FOLLOWS[verb](view)}"
    return f"{asked}. Watch it: r1plus status {name} -n {namespace} -w"


def refresh_all(cluster: Steered, bodies: Iterable[Json], reason: str, now: datetime) -> Iterator[str]:
    """Ask for a refresh of each of these that is outdated; a sentence for each, also for those that cannot be.

    Where none is outdated, one sentence says so.
    """
    views = list(map(view_of, bodies))
    outdated = [view for view in views if _is_outdated(view)]
    if not outdated:
        yield _nothing_outdated(views)
    for view in outdated:
        try:
            yield steer(cluster, view.namespace, view.name, Verb.REFRESH, reason, now)
        except CliError as error:
            yield f"Not asked: {error}"


def _is_outdated(view: DeploymentView) -> bool:
    return view.runtime is not None and (view.runtime.is_outdated or view.runtime.reason == "RefreshWaits")


def _nothing_outdated(views: Collection[DeploymentView]) -> str:
    current = sum(view.runtime is not None for view in views)
    silent = sum(view.runtime is None for view in views)
    runs = "1 deployment runs" if current == 1 else f"{current} deployments run"
    more = f"; {silent} more {'serves' if silent == 1 else 'serve'} nothing yet" if silent else ""
    return f"Nothing is outdated: {runs} the operator's images{more}"


def checked(reason: str) -> str:
    """The reason in one line; UsageError where it is none. Needs no cluster."""
    why = " ".join(reason.split())
    if not why or len(why) > MOST_WHY:
        given = f"has {len(why)} characters, at most {MOST_WHY} are kept" if why else "is empty"
        raise UsageError(f"--reason: {given}; say in a sentence why, for whoever looks at this next")
    return why


def _command(verb: Verb, view: DeploymentView) -> str:
    return format_command(verb, f"{view.name} -n {view.namespace}")


def _no_rollback(view: DeploymentView) -> str:
    if not view.revision:
        return "nothing serves yet, so there is nothing to go back from"
    if view.pinned:
        return f"traffic is pinned, and nothing moves it; {_command(Verb.UNPIN, view)} first"
    if view.reason_of("Progressing") == "RollingBack":
        return f"it is going back already: {view.condition_message('Progressing')}"
    if not view.last_good:
        lacking = "".join(f"\n  {line}" for line in view.rollback_blockers) or "\n  no revision served before this one"
        remedy = "Set spec.engine, batch or context to what you want: its gate decides, and a Pass that it holds stands"
        return (
            "there is no revision to go back to. It must have passed this suite, have carried traffic for"
            f" rollback.bakeSeconds (by default 10 min) and still have its engine:{lacking}\n{remedy}"
        )
    return ""


def _no_pin(view: DeploymentView) -> str:
    if not view.revision:
        return "nothing serves yet, so there is nothing to pin"
    return f"it is pinned already; {_command(Verb.UNPIN, view)} lets traffic move" if view.pinned else ""


def _no_unpin(view: DeploymentView) -> str:
    if view.pinned or view.rolled_back:
        return ""
    return "it is not pinned, and nothing was rolled back that could return"


def _no_pause(view: DeploymentView) -> str:
    return f"it is paused already; {_command(Verb.RESUME, view)} lets the operator act again" if view.paused else ""


def _no_resume(view: DeploymentView) -> str:
    return "" if view.paused else "it is not paused"


def _no_ack(view: DeploymentView) -> str:
    if view.incident is not None or (view.runtime and view.runtime.reason == "RefreshFailed"):
        return ""
    return "there is nothing to acknowledge: no fall, no change and no rollback stands; see `r1plus status`"


def _no_refresh(view: DeploymentView) -> str:
    if view.pinned:
        return f"traffic is pinned, and nothing moves it; {_command(Verb.UNPIN, view)} first"
    if view.rolled_back:
        remedy = f"{_command(Verb.ACK, view)} lets that be gated again first"
        return f"traffic was rolled back from what the spec asks for; {remedy}"
    if not _is_outdated(view):
        return "it runs the images that the operator has; there is nothing newer"
    is_under_way = view.runtime is not None and view.runtime.reason == "RefreshUnderWay"
    return "a candidate is on its way: see `r1plus status`" if is_under_way else ""


_SWITCHES: Final[Mapping[Verb, Json]] = {
    Verb.PIN: {"pinned": True},
    Verb.UNPIN: {"pinned": False},
    Verb.PAUSE: {"paused": True},
    Verb.RESUME: {"paused": False},
}
"""What a verb sets in `spec.rollout`, beside its annotation."""
_REFUSALS: Final[Mapping[Verb, Callable[[DeploymentView], str]]] = {
    Verb.ROLLBACK: _no_rollback,
    Verb.PIN: _no_pin,
    Verb.UNPIN: _no_unpin,
    Verb.PAUSE: _no_pause,
    Verb.RESUME: _no_resume,
    Verb.ACK: _no_ack,
    Verb.REFRESH: _no_refresh,
}
_FOLLOWS: Final[Mapping[Verb, Callable[[DeploymentView], str]]] = {
    Verb.ROLLBACK: lambda view: (
        f"revision {view.last_good} is brought up without traffic and swept anew; if it passes, traffic goes back to it"
        f" and {view.revision} does not return by itself"
    ),
    Verb.PIN: lambda view: f"traffic stays at revision {view.revision}, whatever the spec asks for or falls",
    Verb.UNPIN: lambda view: "traffic may move again; what the spec asks for is rolled out",
    Verb.PAUSE: lambda view: (
        "nothing is moved or repaired but the walls; the platform team may edit its Deployments, Service and budget"
    ),
    Verb.RESUME: lambda view: "what was changed by hand is put right, and what the spec asks for is rolled out",
    Verb.ACK: lambda view: (
        "the monitors gate anew and start afresh if they pass; what was rolled back from or given up may be tried again"
    ),
    Verb.REFRESH: lambda view: (
        "a candidate on the operator's images is gated as soon as it has its turn"
        + (f"; {view.revision} is stopped for that (InPlace)" if view.strategy == "InPlace" else "")
    ),
}
