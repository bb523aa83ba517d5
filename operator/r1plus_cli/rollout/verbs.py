"""`r1plus rollback | pin | unpin | pause | resume | ack | refresh`, as commands."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.text import Text

from r1plus_cli.cluster.connection import connect
from r1plus_cli.errors import UsageError
from r1plus_cli.hints import runnable_hint
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console
from r1plus_cli.rollout.actions import normalise_reason, refresh_all, request_action
from r1plus_contract.requests import Verb

NameArgument = Annotated[str, typer.Argument(help="The R1PlusDeployment.")]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", help="Why, in a sentence: it is stored in an Event and an annotation, with your name."),
]

VERB_HELPS: Final[Mapping[Verb, str]] = {
    Verb.ROLLBACK: """
    Send traffic back to the last good revision, after it has passed the golden suite again.

    The last good revision is the newest other one that passed this suite, carried traffic for ten minutes and still
    has its engine: `r1plus status` shows it. It starts without traffic, so nothing changes if it fails. A rolled-back
    revision is not redeployed automatically, although the spec selects it: change the spec, or `r1plus ack NAME
    --reason "..."`.

    Example: `r1plus rollback credit --reason "Wrong totals since the 14:00 rollout, INC-4711"`
    """,
    Verb.PIN: """
    Hold traffic at the current revision: neither a new spec nor a rollback moves it.

    Sets `spec.rollout.pinned`; if Git owns the spec, set it there too. A bad pod is still quarantined.

    Example: `r1plus pin credit --reason "Quarter-end close until Friday"`
    """,
    Verb.UNPIN: """
    Let traffic move again: the spec is rolled out, even if it was rolled back before.

    Example: `r1plus unpin credit --reason "Quarter closed"`
    """,
    Verb.PAUSE: """
    Stop the operator from changing anything of a deployment except its network policies; probes and alerts continue.

    For emergencies: while it is paused, the platform team may edit its Deployments, Service and PodDisruptionBudget by
    hand. Nothing is rolled out, promoted, rolled back or quarantined. Sets `spec.rollout.paused`; if Git owns the spec,
    set it there too.

    Example: `r1plus pause credit --reason "Driver upgrade on node 7, INC-4711"`
    """,
    Verb.RESUME: """
    End a pause: manual changes are reverted, and the spec is rolled out.

    Example: `r1plus resume credit --reason "Driver upgraded"`
    """,
    Verb.ACK: """
    Acknowledge an accuracy drop, a change or a rollback that you have examined.

    The monitors repeat the gate; a Pass ends their alarm, a Fail keeps it. A revision that was rolled back, or given up
    because both revisions failed, may be tried again.

    Example: `r1plus ack credit --reason "Driver 570.1 rolled back on both nodes"`
    """,
}
"""The help of each verb that requests one action for one deployment."""


def build_command(verb: Verb) -> Callable[..., None]:
    """Return the command that requests a verb of the operator."""

    def request(
        name: NameArgument,
        reason: ReasonOption,
        namespace: NamespaceOption = None,
        kubeconfig: KubeconfigOption = None,
    ) -> None:
        _request(verb, name, reason, namespace, kubeconfig)

    return request


def refresh_command(
    reason: ReasonOption,
    name: Annotated[str | None, typer.Argument(help="The R1PlusDeployment; without it give --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of the namespace with outdated images.")] = False,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="With --all: all tenants.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Update the current revision to the operator's images, by a candidate that is gated like any other.

    An upgrade of the operator restarts nothing by itself. At most `rollout.maxConcurrent` deployments of the cluster
    are refreshed at once, and a failed candidate stops the waiting ones: `r1plus rollouts` shows them.

    Example: `r1plus refresh credit --reason "Triton 26.07 fixes CVE-2026-0001"`
    """
    if every == (name is not None) or (everywhere and not every):
        raise UsageError("Give one R1PlusDeployment, or --all (with -A: all tenants)")
    if name is not None:
        _request(Verb.REFRESH, name, reason, namespace, kubeconfig)
        return
    normalise_reason(reason)
    cluster = connect(kubeconfig)
    space = None if everywhere else namespace or cluster.get_default_namespace()
    for line in refresh_all(cluster, cluster.list_deployments(space), reason, datetime.now(UTC)):
        open_console().print(Text(runnable_hint(line)))


def _request(verb: Verb, name: str, reason: str, namespace: str | None, kubeconfig: str | None) -> None:
    normalise_reason(reason)
    cluster = connect(kubeconfig)
    space = namespace or cluster.get_default_namespace()
    open_console().print(Text(runnable_hint(request_action(cluster, space, name, verb, reason, datetime.now(UTC)))))
