"""The `r1plus` command: it parses options, calls the other modules of this package, and sets the exit status."""

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

from r1plus_cli import local
from r1plus_cli.advice.advise import advise_command
from r1plus_cli.assembly import add_training
from r1plus_cli.cluster.interface import Cluster
from r1plus_cli.deployment import plan_text, status_text
from r1plus_cli.deployment.explain import explain
from r1plus_cli.deployment.preview import build_preview, find_unchecked
from r1plus_cli.deployment.validate import find_problems, find_tenant, find_tenant_problems, merge_engines
from r1plus_cli.deployment.view import COLUMNS, build_view
from r1plus_cli.documents import CONFIG_MAP, Document, read_documents
from r1plus_cli.edge import app as edge_app
from r1plus_cli.engine.engine_app import app as engine_app
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.fit import fit_command
from r1plus_cli.gateway.key import audit_command, key_app, usage_command
from r1plus_cli.gateway.knowledge import knowledge_app
from r1plus_cli.hints import runnable_hint
from r1plus_cli.history_verbs import engines_command, evaluations_command, history_command
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console
from r1plus_cli.rollout.actions import normalise_reason, refresh_all, request_action
from r1plus_cli.rollout.rollouts import show_rollouts
from r1plus_cli.serve.service import app as serve_app
from r1plus_cli.suite.suite_app import app as suite_app
from r1plus_cli.tenant.tenant_app import app as tenant_app
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
    help="""Shows R1+ models in an enterprise's Kubernetes: what would run, what runs, and how accurate it is.

**fit**, **plan** and **validate** need no cluster; **advise** measures which tier is enough. **status**, **explain**
and **ask** use your kubeconfig and only read. **history**, **evaluations** and **engines** show what the registry
recorded. **suite** makes and signs golden suites; **engine** makes engines of models. **rollback**, **pin**, **unpin**,
**ack** and **refresh** request an action of the operator and record who and why. **rollouts** shows which images serve,
and the progress of newer ones.
**key**, **usage** and **audit** administer a tenant's gateway; **tenant** makes half of its key, backs up its data
and restores them.

Start here: `r1plus plan -f examples/credit-full.yaml`
""",
)

app.add_typer(suite_app)
add_training(engine_app)
app.add_typer(engine_app)
app.add_typer(edge_app)
app.add_typer(key_app)
app.add_typer(knowledge_app)
app.add_typer(serve_app)
app.add_typer(tenant_app)
app.command("fit")(fit_command)
app.command("advise")(advise_command)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        sys.stdout.write(f"r1plus {version('r1plus')}\n")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


FileOption = Annotated[
    str, typer.Option("-f", "--file", help="A file or folder with R1PlusDeployments; - is standard input.")
]
CatalogOption = Annotated[
    Path, typer.Option("--catalog", help="Folder with R1PlusEngines; by default the shipped catalog.")
]
FamilyOption = Annotated[
    str, typer.Option("--family", help="Engine family if the spec has none: the chart's `defaultFamily`.")
]


@app.command("plan")
def plan_command(
    file: FileOption,
    output: Annotated[str, typer.Option("-o", "--output", help="text, or yaml: the objects themselves.")] = "text",
    catalog: CatalogOption = local.SHIPPED_CATALOG,
    suites: Annotated[Path, typer.Option("--suites", help="Folder with golden suites.")] = local.SHIPPED_SUITES,
    family: FamilyOption = local.DEFAULT_FAMILY,
    node_memory: Annotated[
        str | None, typer.Option("--node-memory", help="Fit into a node with this allocatable memory, such as 48Gi.")
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(
            "--values",
            exists=True,
            dir_okay=False,
            help="The chart's values: Triton images for GPUs, and with vLLM for CPU. Default: all those for GPUs.",
        ),
    ] = None,
) -> None:
    """Show what the operator would create for an R1PlusDeployment, and why. Needs no cluster.

    Shows the selected engine and why no other, batch and memory term by term, network policies, the gate and every
    object. It also uses engines, tenants and golden suites of the file. What only a cluster knows is assumed and
    listed.
    """
    if output not in ("text", "yaml"):
        raise UsageError(f"--output: {output!r} is neither text nor yaml")
    config, engines, memory = (
        local.build_config(family, values),
        local.load_engines(catalog, family),
        _parse_memory(node_memory),
    )
    console, shipped_suites, has_failed = open_console(), local.load_suites(suites), False
    documents = read_documents(file, KIND_DEPLOYMENT)
    engines, results = merge_engines(documents[KIND_ENGINE], engines)
    results += [(document.title, find_tenant_problems(document)) for document in documents[KIND_TENANT]]
    for title, problems in results:
        if problems:
            _show_problems(title, problems)
            has_failed = True
    for document in documents[KIND_DEPLOYMENT]:
        if problems := find_problems(document, engines, config):
            _show_problems(document.title, problems)
            has_failed = True
            continue
        suite_sources = {**shipped_suites, **local.select_suites(document, documents[CONFIG_MAP])}
        plan_preview = build_preview(
            document, engines, suite_sources, config, memory, find_tenant(document, documents[KIND_TENANT])
        )
        if output == "yaml":
            sys.stdout.write("---\n" + plan_text.format_yaml(plan_preview))
        else:
            plan_text.show(console, plan_preview)
        has_failed = has_failed or plan_preview.problem is not None or plan_preview.disallowed_callers != ""
    raise typer.Exit(1 if has_failed else 0)


@app.command("validate")
def validate_command(
    file: FileOption, catalog: CatalogOption = local.SHIPPED_CATALOG, family: FamilyOption = local.DEFAULT_FAMILY
) -> None:
    """Check R1PlusDeployments and R1PlusEngines and list every problem: field, value and limit. Needs no cluster.

    It also uses engines, tenants and golden suites of the file. What only a cluster knows is listed. Exit status 1 if
    there is a problem, so that a pipeline can stop before `kubectl apply`.
    """
    config = local.build_config(family)
    documents = read_documents(file, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT)
    engines, results = merge_engines(documents[KIND_ENGINE], local.load_engines(catalog, family))
    shipped_suites, unchecked = local.load_suites(local.SHIPPED_SUITES), {}
    for document in documents[KIND_DEPLOYMENT]:
        tenant = find_tenant(document, documents[KIND_TENANT])
        results.append((document.title, find_problems(document, engines, config, tenant)))
        suite_sources = {**shipped_suites, **local.select_suites(document, documents[CONFIG_MAP])}
        unchecked[document.title] = _list_unchecked(document, suite_sources, tenant)
    results += [(document.title, find_tenant_problems(document)) for document in documents[KIND_TENANT]]
    for title, problems in results:
        if problems:
            _show_problems(title, problems)
            continue
        open_console().print(Text(f"{title}: valid", style="green"))
        for line in unchecked.get(title, ()):
            open_console().print(Text(f"  not checked offline: {line}"))
    raise typer.Exit(1 if any(problems for _, problems in results) else 0)


@app.command("status")
def status_command(
    name: Annotated[
        str | None, typer.Argument(help="One R1PlusDeployment in full; without it, a line for each.")
    ] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="All tenants.")] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Print a line for each change, until Ctrl-C.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the state of deployments: what serves, its measured accuracy, what is wrong and what to do."""
    cluster = _connect(kubeconfig)
    space = None if everywhere else namespace or cluster.get_default_namespace()
    if name is not None and space is None:
        raise UsageError("A name needs one namespace: give -n, not -A")
    if cluster.is_operator_ready() is False:
        open_console().print(Text(runnable_hint(status_text.NO_OPERATOR), style="bold red"))
    if watch:
        _watch(cluster, space, name)
    elif name is not None and space is not None:
        status_text.show_one(open_console(), build_view(cluster.get_deployment(space, name)), datetime.now(UTC))
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
    """Show which engine and batch were selected, and why not others: from the catalog and nodes of the cluster.

    Exit status 1 if the spec cannot be served.
    """
    cluster = _connect(kubeconfig)
    space = namespace or cluster.get_default_namespace()
    shipped_suites, config = local.load_suites(suites), local.build_config(family, is_installed=True)
    can_be_served = explain(open_console(), cluster, space, name, shipped_suites, config)
    raise typer.Exit(0 if can_be_served else 1)


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
        str | None, typer.Option(help="host:port of Triton's gRPC, if you can reach it; no port is forwarded.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the whole answer.")] = 60.0,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Ask a deployment one question; the answer streams, then its cost: tokens/s and time to first token.

    Forwards a port to a pod of the deployment's Service, like `kubectl port-forward`.
    """
    # Late, like `_connect`: gRPC and numpy would double the start time of `plan` and `validate`.
    from r1plus_cli.deployment.ask import ask_deployment, end_last_line
    from r1plus_cli.deployment.stream import Question, ask

    text = sys.stdin.read() if prompt == "-" else prompt
    question = Question(text, system, max_new_tokens, temperature, top_p, repetition_penalty, seed)
    with end_last_line(_write) as write:
        if address is not None:
            engine, answer = "", ask(address, question, timeout_s=timeout, on_text=write)
        else:
            cluster = _connect(kubeconfig)
            space = namespace or cluster.get_default_namespace()
            view, answer = ask_deployment(cluster, space, name, question, timeout, write)
            engine = f"{view.engine}: " if view.engine else ""
    Console(stderr=True, soft_wrap=True).print(
        Text(f"{engine}{answer.format_figures()} ({answer.finish_reason})", style="dim")
    )


NameArgument = Annotated[str, typer.Argument(help="The R1PlusDeployment.")]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", help="Why, in a sentence: it is stored in an Event and an annotation, with your name."),
]


@app.command("rollback")
def rollback_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Send traffic back to the last good revision, after it has passed the golden suite again.

    The last good revision is the newest other one that passed this suite, carried traffic for ten minutes and still
    has its engine: `r1plus status` shows it. It starts without traffic, so nothing changes if it fails. A rolled-back
    revision is not redeployed automatically, although the spec selects it: change the spec, or `r1plus ack NAME
    --reason "..."`.

    Example: `r1plus rollback credit --reason "Wrong totals since the 14:00 rollout, INC-4711"`
    """
    _request_action(Verb.ROLLBACK, name, reason, namespace, kubeconfig)


@app.command("pin")
def pin_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Hold traffic at the current revision: neither a new spec nor a rollback moves it.

    Sets `spec.rollout.pinned`; if Git owns the spec, set it there too. A bad pod is still quarantined.

    Example: `r1plus pin credit --reason "Quarter-end close until Friday"`
    """
    _request_action(Verb.PIN, name, reason, namespace, kubeconfig)


@app.command("unpin")
def unpin_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Let traffic move again: the spec is rolled out, even if it was rolled back before.

    Example: `r1plus unpin credit --reason "Quarter closed"`
    """
    _request_action(Verb.UNPIN, name, reason, namespace, kubeconfig)


@app.command("pause")
def pause_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Stop the operator from changing anything of a deployment except its network policies; probes and alerts continue.

    For emergencies: while it is paused, the platform team may edit its Deployments, Service and PodDisruptionBudget by
    hand. Nothing is rolled out, promoted, rolled back or quarantined. Sets `spec.rollout.paused`; if Git owns the spec,
    set it there too.

    Example: `r1plus pause credit --reason "Driver upgrade on node 7, INC-4711"`
    """
    _request_action(Verb.PAUSE, name, reason, namespace, kubeconfig)


@app.command("resume")
def resume_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """End a pause: manual changes are reverted, and the spec is rolled out.

    Example: `r1plus resume credit --reason "Driver upgraded"`
    """
    _request_action(Verb.RESUME, name, reason, namespace, kubeconfig)


@app.command("ack")
def ack_command(
    name: NameArgument,
    reason: ReasonOption,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Acknowledge an accuracy drop, a change or a rollback that you have examined.

    The monitors repeat the gate; a Pass ends their alarm, a Fail keeps it. A revision that was rolled back, or given up
    because both revisions failed, may be tried again.

    Example: `r1plus ack credit --reason "Driver 570.1 rolled back on both nodes"`
    """
    _request_action(Verb.ACK, name, reason, namespace, kubeconfig)


@app.command("refresh")
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
        _request_action(Verb.REFRESH, name, reason, namespace, kubeconfig)
        return
    normalise_reason(reason)
    from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster

    cluster = KubernetesCluster(kubeconfig)
    space = None if everywhere else namespace or cluster.get_default_namespace()
    for line in refresh_all(cluster, cluster.list_deployments(space), reason, datetime.now(UTC)):
        open_console().print(Text(runnable_hint(line)))


@app.command("rollouts")
def rollouts_command(
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="All tenants.")] = False,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show which images serve, and the progress of newer ones: under way, waiting, failed."""
    cluster = _connect(kubeconfig)
    space = None if everywhere else namespace or cluster.get_default_namespace()
    show_rollouts(open_console(), [build_view(cr) for cr in cluster.list_deployments(space)])


app.command("history")(history_command)
app.command("evaluations")(evaluations_command)
app.command("engines")(engines_command)
app.command("usage")(usage_command)
app.command("audit")(audit_command)


def main() -> None:
    """Entry point of the `r1plus` script: errors that a user can fix are one line, not a trace."""
    try:
        app()
    except CliError as error:
        Console(stderr=True, soft_wrap=True).print(Text(runnable_hint(f"Error: {error}"), style="red"))
        sys.exit(error.status)


def _connect(kubeconfig: str | None) -> Cluster:
    from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster

    return KubernetesCluster(kubeconfig)


def _request_action(verb: Verb, name: str, reason: str, namespace: str | None, kubeconfig: str | None) -> None:
    normalise_reason(reason)
    from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster

    cluster = KubernetesCluster(kubeconfig)
    space = namespace or cluster.get_default_namespace()
    open_console().print(Text(runnable_hint(request_action(cluster, space, name, verb, reason, datetime.now(UTC)))))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _parse_memory(quantity: str | None) -> int | None:
    try:
        return None if quantity is None else bytes_of(quantity)
    except ValueError as error:
        raise UsageError(f"--node-memory: {error}") from error


def _list_unchecked(document: Document, suites: dict[str, SuiteSource], tenant: R1PlusTenantSpec | None) -> list[str]:
    """Return what only a cluster can confirm; empty for an invalid deployment."""
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
    views = [build_view(cr) for cr in cluster.list_deployments(namespace)]
    if not views:
        where = "any namespace" if namespace is None else f"namespace {namespace}"
        hint = "kubectl apply -f examples/tenants.yaml -f examples/credit-full.yaml"
        open_console().print(Text(runnable_hint(f"No R1PlusDeployment in {where}; try: {hint}")))
        return
    status_text.show_table(open_console(), views, datetime.now(UTC))


def _watch(cluster: Cluster, namespace: str | None, name: str | None) -> None:
    views = [view for view in map(build_view, cluster.list_deployments(namespace)) if name in (None, view.name)]
    widths = status_text.compute_widths(views)
    reporter = status_text.ChangeReporter(widths=widths)
    _write(f"{'TIME (UTC)':<10}  {status_text.format_cells(COLUMNS, widths)}  STATE\n")
    try:
        for view in map(build_view, cluster.watch_changes(namespace)):
            line = reporter.format_change(view, time.monotonic()) if name in (None, view.name) else None
            if line is not None:
                _write(f"{datetime.now(UTC):%H:%M:%S}    {line}\n")
    except KeyboardInterrupt:
        return
