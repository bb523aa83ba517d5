"""`r1plus explain NAME`: why this engine and batch were selected for a live deployment, and not others.

Runs the operator's own selection and fit over the cluster's current catalog, nodes and tenant's suites.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from r1plus_cli import local
from r1plus_cli.cluster.connection import connect
from r1plus_cli.cluster.interface import Cluster, Json
from r1plus_cli.deployment import plan_text
from r1plus_cli.deployment.preview import ANY_NODE
from r1plus_cli.deployment.spec_files import FamilyOption
from r1plus_cli.documents import Document
from r1plus_cli.errors import CliError
from r1plus_cli.options import KubeconfigOption, NamespaceOption, open_console
from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.observe import node_projection, projections, suite_projection
from r1plus_operator.plan.engine.feasibility import Incumbent
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.observation import NodeFacts, SuiteSource
from r1plus_operator.plan.settings import OperatorConfig


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
    cluster = connect(kubeconfig)
    space = namespace or cluster.get_default_namespace()
    shipped_suites, config = local.load_suites(suites), local.build_config(family, is_installed=True)
    can_be_served = explain(open_console(), cluster, space, name, shipped_suites, config)
    raise typer.Exit(0 if can_be_served else 1)


def explain(
    console: Console,
    cluster: Cluster,
    namespace: str,
    name: str,
    shipped: Mapping[str, SuiteSource],
    config: OperatorConfig,
) -> bool:
    """Print the explanation and return whether the spec can be served.

    Raise CliError if the cluster does not answer.
    """
    cr = cluster.get_deployment(namespace, name)
    document = Document("live", cr)
    console.print(Text(f"{namespace}/{name}", style="bold"))
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec or {})
    except ValidationError as error:
        raise CliError(f"{namespace}/{name}: " + "; ".join(spec_problems(error, R1PlusDeploymentSpec))) from error
    nodes = _list_node_facts(console, cluster)
    engines = tuple(
        cached.value.engine
        for cached in map(projections.project_engine, cluster.list_engines())
        if cached.value.engine is not None
    )
    own = {source.name: source for source in map(suite_projection.read_suite, cluster.list_suites(namespace))}
    status = cr.get("status") or {}
    serving, product = (str(status.get(key) or "") for key in ("engine", "gpu"))
    suites, products = {**shipped, **own}, [product] if product else ()

    def resolve_for(incumbent: Incumbent | None) -> Target | Problem:
        return resolve(spec, engines, suites, nodes, config, serving, products=products, incumbent=incumbent)

    resolved = _keep_current(status, resolve_for(Incumbent(serving, int(status.get("batch") or 0)))) or resolve_for(
        None
    )
    _show_target(console, spec, resolved)
    _show_current(console, cr.get("status") or {}, resolved)
    return isinstance(resolved, Target)


def _keep_current(status: Json, target: Target | Problem) -> Target | None:
    """Return the target if it is the current revision, which stays while it fits, even if another batch fits better."""
    if isinstance(target, Problem):
        return None
    serves = (target.engine.name, target.fit.batch, target.fit.context, target.gpus.product if target.gpus else "")
    status_of = (status.get("engine"), status.get("batch"), status.get("context"), str(status.get("gpu") or ""))
    return target if serves == status_of else None


def _list_node_facts(console: Console, cluster: Cluster) -> tuple[NodeFacts, ...]:
    nodes = cluster.list_nodes()
    if nodes is None:
        console.print(
            Text(
                "  You may not list nodes, so memory is not fitted here; the operator's figures are in CapacityFits",
                style="yellow",
            )
        )
        return (ANY_NODE,)
    return tuple(cached.value for cached in map(node_projection.project_node, nodes) if cached is not None)


def _show_target(console: Console, spec: R1PlusDeploymentSpec, resolved: Target | Problem) -> None:
    if isinstance(resolved, Problem):
        console.print(Text(f"  The spec cannot be served: {resolved.condition}=False, {resolved.reason}", style="red"))
        console.print(Text(f"  {resolved.message}"))
        if resolved.choice:
            plan_text.show_lines(console, "Engines", plan_text.format_rejection_lines(resolved.choice))
        return
    plan_text.show_lines(console, "Engine", plan_text.format_engine_lines(resolved))
    plan_text.show_lines(console, "Batch, context and memory", plan_text.format_memory_lines(spec, resolved))


def _show_current(console: Console, status: Json, resolved: Target | Problem) -> None:
    """Print the current revision if it differs from the spec."""
    engine, revision = status.get("engine", ""), status.get("revision", "")
    if not revision:
        lines = ["nothing takes traffic yet; `r1plus status` says why"]
    else:
        lines = [f"revision {revision}: {engine}, batch {status.get('batch')}, context {status.get('context')} tokens"]
        if isinstance(resolved, Target) and engine != resolved.engine.name:
            lines.append(f"the spec selects {resolved.engine.name}; `r1plus status` says why it does not serve")
    plan_text.show_lines(console, "Now", lines)
