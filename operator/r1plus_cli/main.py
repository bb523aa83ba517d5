"""The `r1plus` command: words in, calls to the modules beside this one, exit status out. Nothing is decided here."""

import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from r1plus_cli import local, plan_text
from r1plus_cli import status as status_text
from r1plus_cli.actions import checked, refresh_all, steer
from r1plus_cli.cluster import Cluster
from r1plus_cli.documents import CONFIG_MAP, Document, read_documents
from r1plus_cli.engine import app as engine_app
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.explain import explain
from r1plus_cli.fit import fit_command
from r1plus_cli.hints import as_typed
from r1plus_cli.history_verbs import engines_command, evaluations_command, history_command
from r1plus_cli.preview import find_unchecked, preview
from r1plus_cli.rollouts import show_rollouts
from r1plus_cli.suite import app as suite_app
from r1plus_cli.validate import engines_of, problems_of, tenant_for, tenant_problems
from r1plus_cli.view import COLUMNS, view_of
from r1plus_contract.names import KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT
from r1plus_contract.requests import Verb
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import SuiteSource

app = typer.Typer(
    name="r1plus",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Looks at R1+ models in an enterprise's Kubernetes: what would run, what runs, and whether it is right.

**fit**, **plan** and **validate** need no cluster; **status**, **explain** and **ask** use your kubeconfig and read.
**history**, **evaluations** and **engines** ask the registry what ran when, and why.
**suite** makes and signs golden suites; **engine** makes engines of models.
**rollback**, **pin**, **unpin**, **ack** and **refresh** ask the operator to act; each says who and why for whoever
looks next. **rollouts** tells which images serve where, and how far newer ones have come.

Start here: `r1plus plan -f examples/credit-full.yaml`
""",
)

app.add_typer(suite_app)
app.add_typer(engine_app)
app.command("fit")(fit_command)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"r1plus {version('r1plus')}\n")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of the command itself."""


FileOption = Annotated[
    str, typer.Option("-f", "--file", help="A file or folder with R1PlusDeployments; - is standard input.")
]
CatalogOption = Annotated[
    Path, typer.Option("--catalog", help="Folder with R1PlusEngines; by default the catalog that is shipped.")
]
FamilyOption = Annotated[
    str, typer.Option("--family", help="Engine family where the spec names none: the chart's `defaultFamily`.")
]
NamespaceOption = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Tenant; by default your context's namespace.")
]
KubeconfigOption = Annotated[
    str | None, typer.Option("--kubeconfig", help="By default $KUBECONFIG, then ~/.kube/config.")
]


@app.command("plan")
def plan_command(
    file: FileOption,
    output: Annotated[str, typer.Option("-o", "--output", help="text, or yaml: the objects themselves.")] = "text",
    catalog: CatalogOption = local.SHIPPED_CATALOG,
    suites: Annotated[Path, typer.Option("--suites", help="Folder with golden suites.")] = local.SHIPPED_SUITES,
    family: FamilyOption = local.DEFAULT_FAMILY,
    node_memory: Annotated[
        str | None, typer.Option("--node-memory", help="Fit into a node of this allocatable memory, such as 48Gi.")
    ] = None,
) -> None:
    """Show what the operator would create for an R1PlusDeployment, and why. Needs no cluster.

    Tells the engine chosen and why no other, batch and memory term by term, the walls, the gate and every object.
    Engines, tenants and golden suites of the file count as well. What only a cluster can tell is assumed, and named.
    """
    if output not in ("text", "yaml"):
        raise UsageError(f"--output: {output!r} is neither text nor yaml")
    config, engines, memory = local.config_for(family), local.engines_in(catalog), _memory(node_memory)
    console, shipped, failed = _console(), local.suites_in(suites), False
    given = read_documents(file, KIND_DEPLOYMENT)
    engines, judged = engines_of(given[KIND_ENGINE], engines)
    judged += [(document.title, tenant_problems(document)) for document in given[KIND_TENANT]]
    for title, problems in judged:
        if problems:
            _show_problems(title, problems)
            failed = True
    for document in given[KIND_DEPLOYMENT]:
        if problems := problems_of(document, engines, config):
            _show_problems(document.title, problems)
            failed = True
            continue
        known = {**shipped, **local.suites_for(document, given[CONFIG_MAP])}
        made = preview(document, engines, known, config, memory, tenant_for(document, given[KIND_TENANT]))
        if output == "yaml":
            sys.stdout.write("---\n" + plan_text.as_yaml(made))
        else:
            plan_text.show(console, made)
        failed = failed or made.problem is not None or made.uninvited != ""
    raise typer.Exit(1 if failed else 0)


@app.command("validate")
def validate_command(
    file: FileOption, catalog: CatalogOption = local.SHIPPED_CATALOG, family: FamilyOption = local.DEFAULT_FAMILY
) -> None:
    """Check R1PlusDeployments and R1PlusEngines and name every problem: field, value and limit. Needs no cluster.

    Engines, tenants and golden suites of the file count for its deployments. What only a cluster can tell is named.
    Exit status 1 if anything is wrong, so that a pipeline can stop before `kubectl apply` does.
    """
    config = local.config_for(family)
    given = read_documents(file, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT)
    engines, judged = engines_of(given[KIND_ENGINE], local.engines_in(catalog))
    shipped, unchecked = local.suites_in(local.SHIPPED_SUITES), {}
    for document in given[KIND_DEPLOYMENT]:
        tenant = tenant_for(document, given[KIND_TENANT])
        judged.append((document.title, problems_of(document, engines, config, tenant)))
        known = {**shipped, **local.suites_for(document, given[CONFIG_MAP])}
        unchecked[document.title] = _unchecked(document, known, tenant)
    judged += [(document.title, tenant_problems(document)) for document in given[KIND_TENANT]]
    for title, problems in judged:
        if problems:
            _show_problems(title, problems)
            continue
        _console().print(Text(f"{title}: valid", style="green"))
        for line in unchecked.get(title, ()):
            _console().print(Text(f"  not checked offline: {line}"))
    raise typer.Exit(1 if any(problems for _, problems in judged) else 0)


@app.command("status")
def status_command(
    name: Annotated[
        str | None, typer.Argument(help="One R1PlusDeployment, in full; without it, a line for each.")
    ] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of every tenant.")] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on, a line for each change, until Ctrl-C.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Tell where deployments stand: what serves, how right it was when last counted, what is wrong and what to do."""
    cluster = _connect(kubeconfig)
    space = None if everywhere else namespace or cluster.default_namespace()
    if name is not None and space is None:
        raise UsageError("A name needs one namespace: give -n, not -A")
    if cluster.operator_ready() is False:
        _console().print(Text(as_typed(status_text.NO_OPERATOR), style="bold red"))
    if watch:
        _watch(cluster, space, name)
    elif name is not None and space is not None:
        status_text.show_one(_console(), view_of(cluster.deployment(space, name)), datetime.now(UTC))
    else:
        _show_all(cluster, space)


@app.command("explain")
def explain_command(
    name: Annotated[str, typer.Argument(help="The R1PlusDeployment to explain.")],
    namespace: NamespaceOption = None,
    suites: Annotated[Path, typer.Option("--suites", help="Folder with the shipped suites.")] = local.SHIPPED_SUITES,
    family: FamilyOption = local.DEFAULT_FAMILY,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Tell which engine and batch were chosen, and why the others were not: from the catalog and nodes of the cluster.

    Exit status 1 if the spec cannot be served.
    """
    cluster = _connect(kubeconfig)
    space = namespace or cluster.default_namespace()
    shipped, config = local.suites_in(suites), local.config_for(family)
    served = explain(_console(), cluster, space, name, shipped, config)
    raise typer.Exit(0 if served else 1)


@app.command("ask")
def ask_command(
    name: Annotated[str, typer.Argument(help="The R1PlusDeployment to ask.")],
    prompt: Annotated[str, typer.Argument(help="The question; - reads standard input.")],
    namespace: NamespaceOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 128,
    temperature: Annotated[float | None, typer.Option(help="0 (the default) is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling, in (0, 1].")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 discourages repetition.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of Triton's gRPC, where you can reach it; no port is forwarded then.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the whole answer.")] = 60.0,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Ask a deployment one question; the answer streams, then its cost: tokens/s and time to first token.

    Goes through a forwarded port to a pod of the deployment's Service, as `kubectl port-forward` does.
    """
    # Late, like `_connect`: gRPC and numpy are half of the time that `plan` and `validate` would take to start.
    from r1plus_cli.ask import ask_deployment, paced
    from r1plus_cli.stream import Question, ask

    text = sys.stdin.read() if prompt == "-" else prompt
    question = Question(text, system, max_new_tokens, temperature, top_p, repetition_penalty, seed)
    with paced(_write) as write:
        if address is not None:
            engine, answer = "", ask(address, question, timeout_s=timeout, on_text=write)
        else:
            cluster = _connect(kubeconfig)
            space = namespace or cluster.default_namespace()
            view, answer = ask_deployment(cluster, space, name, question, timeout, write)
            engine = f"{view.engine}: " if view.engine else ""
    Console(stderr=True, soft_wrap=True).print(
        Text(f"{engine}{answer.figures()} ({answer.finish_reason})", style="dim")
    )


NameArgument = Annotated[str, typer.Argument(help="The R1PlusDeployment.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, in a sentence: it stands in an Event and an annotation, beside your name.")
]


@app.command("rollback")
def rollback_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Send traffic back to the last good revision, once that has passed the golden suite anew.

    Last good is the newest other revision that passed this very suite, carried traffic for ten minutes and whose engine
    is still there: `r1plus status` names it. It is brought up without traffic first, so nothing moves if it fails, too.
    What was gone back from does not return by itself, although the spec asks for it: change the spec, or
    `r1plus ack NAME --reason "..."`.

    Example: `r1plus rollback credit --reason "Wrong totals since the 14:00 rollout, INC-4711"`
    """
    _steer(Verb.ROLLBACK, name, reason, namespace, kubeconfig)


@app.command("pin")
def pin_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Hold traffic at the revision that has it: neither a new spec nor a rollback moves it.

    Sets `spec.rollout.pinned`; where Git owns the spec, set it there as well. A bad pod is still quarantined.

    Example: `r1plus pin credit --reason "Quarter-end close until Friday"`
    """
    _steer(Verb.PIN, name, reason, namespace, kubeconfig)


@app.command("unpin")
def unpin_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Let traffic move again: what the spec asks for is rolled out, also where it was rolled back from before.

    Example: `r1plus unpin credit --reason "Quarter closed"`
    """
    _steer(Verb.UNPIN, name, reason, namespace, kubeconfig)


@app.command("pause")
def pause_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Let the operator move and repair nothing of one deployment but its walls; probes and alerts go on.

    Break glass: while it is paused, the platform team may edit its Deployments, Service and PodDisruptionBudget by
    hand. Nothing is rolled out, promoted, rolled back or quarantined. Sets `spec.rollout.paused`; where Git owns the
    spec, set it there as well.

    Example: `r1plus pause credit --reason "Driver upgrade on node 7, INC-4711"`
    """
    _steer(Verb.PAUSE, name, reason, namespace, kubeconfig)


@app.command("resume")
def resume_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """End a pause: what was changed by hand is put right, and what the spec asks for is rolled out.

    Example: `r1plus resume credit --reason "Driver upgraded"`
    """
    _steer(Verb.RESUME, name, reason, namespace, kubeconfig)


@app.command("ack")
def ack_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Acknowledge a fall, a change or a rollback that you have looked at.

    The monitors run the gate's sweeps anew, and a Pass ends their alarm; a Fail leaves it. What was rolled back from,
    or given up because both revisions failed, may be tried again.

    Example: `r1plus ack credit --reason "Driver 570.1 rolled back on both nodes"`
    """
    _steer(Verb.ACK, name, reason, namespace, kubeconfig)


@app.command("refresh")
def refresh_command(
    reason: ReasonOption,
    name: Annotated[str | None, typer.Argument(help="The R1PlusDeployment; without it say --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of the namespace whose images are outdated.")] = False,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="With --all: of every tenant.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Bring what serves to the images that the operator has now, by a candidate that is gated like any other.

    An upgrade of the operator restarts nothing by itself. At most `rollout.maxConcurrent` deployments of the cluster
    are refreshed at once, and one candidate that fails stops those that wait: `r1plus rollouts` shows them.

    Example: `r1plus refresh credit --reason "Triton 26.07 mends CVE-2026-0001"`
    """
    if every == (name is not None) or (everywhere and not every):
        raise UsageError("Name one R1PlusDeployment, or say --all (with -A: of every tenant)")
    if name is not None:
        _steer(Verb.REFRESH, name, reason, namespace, kubeconfig)
        return
    checked(reason)
    from r1plus_cli.kubernetes_cluster import KubernetesCluster

    cluster = KubernetesCluster(kubeconfig)
    space = None if everywhere else namespace or cluster.default_namespace()
    for line in refresh_all(cluster, cluster.deployments(space), reason, datetime.now(UTC)):
        _console().print(Text(as_typed(line)))


@app.command("rollouts")
def rollouts_command(
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of every tenant.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Tell which images serve where, and how far newer ones have come: under way, waiting, failed."""
    cluster = _connect(kubeconfig)
    space = None if everywhere else namespace or cluster.default_namespace()
    show_rollouts(_console(), [view_of(cr) for cr in cluster.deployments(space)])


app.command("history")(history_command)
app.command("evaluations")(evaluations_command)
app.command("engines")(engines_command)


def main() -> None:
    """Entry point of the `r1plus` script: errors that a user can mend are one line, not a trace."""
    try:
        app()
    except CliError as error:
        Console(stderr=True, soft_wrap=True).print(Text(as_typed(f"Error: {error}"), style="red"))
        sys.exit(error.status)


def _connect(kubeconfig: str | None) -> Cluster:
    from r1plus_cli.kubernetes_cluster import KubernetesCluster

    return KubernetesCluster(kubeconfig)


def _steer(verb: Verb, name: str, reason: str, namespace: str | None, kubeconfig: str | None) -> None:
    checked(reason)
    from r1plus_cli.kubernetes_cluster import KubernetesCluster

    cluster = KubernetesCluster(kubeconfig)
    space = namespace or cluster.default_namespace()
    _console().print(Text(as_typed(steer(cluster, space, name, verb, reason, datetime.now(UTC)))))


def _console() -> Console:
    return Console(soft_wrap=not sys.stdout.isatty())


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _memory(quantity: str | None) -> int | None:
    try:
        return None if quantity is None else bytes_of(quantity)
    except ValueError as error:
        raise UsageError(f"--node-memory: {error}") from error


def _unchecked(document: Document, suites: dict[str, SuiteSource], tenant: R1PlusTenantSpec | None) -> list[str]:
    """What of a deployment only a cluster can tell; of one that is not valid nothing."""
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec)
    except ValidationError:
        return []
    return list(find_unchecked(document.namespace, spec, suites, tenant))


def _show_problems(title: str, problems: list[str]) -> None:
    console = Console(stderr=True, soft_wrap=True)
    count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    console.print(Text(f"{title}: {count}", style="red"))
    for problem in problems:
        console.print(Text(f"  {problem}"))


def _show_all(cluster: Cluster, namespace: str | None) -> None:
    views = [view_of(cr) for cr in cluster.deployments(namespace)]
    if not views:
        where = "any namespace" if namespace is None else f"namespace {namespace}"
        hint = "kubectl apply -f examples/tenants.yaml -f examples/credit-full.yaml"
        _console().print(Text(as_typed(f"No R1PlusDeployment in {where}; try: {hint}")))
        return
    status_text.show_table(_console(), views, datetime.now(UTC))


def _watch(cluster: Cluster, namespace: str | None, name: str | None) -> None:
    known = [view for view in map(view_of, cluster.deployments(namespace)) if name in (None, view.name)]
    widths = status_text.widths_for(known)
    teller = status_text.ChangeTeller(widths=widths)
    _write(f"{'TIME (UTC)':<10}  {status_text.format_cells(COLUMNS, widths)}  WHERE IT STANDS\n")
    try:
        for view in map(view_of, cluster.changes(namespace)):
            line = teller.line(view, time.monotonic()) if name in (None, view.name) else None
            if line is not None:
                _write(f"{datetime.now(UTC):%H:%M:%S}    {line}\n")
    except KeyboardInterrupt:
        return
