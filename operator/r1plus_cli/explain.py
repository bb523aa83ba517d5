"""`r1plus explain NAME`: which engine and batch were chosen for a live deployment, and why the others were not.

Runs the operator's own choice and fit over what the cluster holds now: the catalog, the nodes, the tenant's suites.
"""

from collections.abc import Mapping

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from r1plus_cli import plan_text
from r1plus_cli.cluster import Cluster, Json
from r1plus_cli.documents import Document
from r1plus_cli.errors import CliError
from r1plus_cli.preview import ANY_NODE
from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.observe import projections
from r1plus_operator.plan.engine.feasibility import Incumbent
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.observation import NodeFacts, SuiteSource
from r1plus_operator.plan.settings import OperatorConfig


def explain(
    console: Console,
    cluster: Cluster,
    namespace: str,
    name: str,
    shipped: Mapping[str, SuiteSource],
    config: OperatorConfig,
) -> bool:
    """Print the explanation; whether the spec can be served. CliError where the cluster does not answer."""
    cr = cluster.deployment(namespace, name)
    document = Document("live", cr)
    console.print(Text(f"{namespace}/{name}", style="bold"))
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec or {})
    except ValidationError as error:
        raise CliError(f"{namespace}/{name}: " + "; ".join(spec_problems(error, R1PlusDeploymentSpec))) from error
    nodes = _nodes(console, cluster)
    engines = tuple(
        kept.value.engine for kept in map(projections.engine, cluster.engines()) if kept.value.engine is not None
    )
    own = {source.name: source for source in map(projections.suite, cluster.suites(namespace))}
    status = cr.get("status") or {}
    serving, product = (str(status.get(key) or "") for key in ("engine", "gpu"))
    suites, products = {**shipped, **own}, [product] if product else ()

    def resolve_for(incumbent: Incumbent | None) -> Target | Problem:
        return resolve(spec, engines, suites, nodes, config, serving, products=products, incumbent=incumbent)

    resolved = _served(status, resolve_for(Incumbent(serving, int(status.get("batch") or 0)))) or resolve_for(None)
    _show(console, spec, resolved)
    _serving(console, cr.get("status") or {}, resolved)
    return isinstance(resolved, Target)


def _served(status: Json, held: Target | Problem) -> Target | None:
    """Return the target if it is what serves: that stays while it fits, though another batch may fit better by now."""
    if isinstance(held, Problem):
        return None
    serves = (held.engine.name, held.fit.batch, held.fit.context, held.gpus.product if held.gpus else "")
    status_of = (status.get("engine"), status.get("batch"), status.get("context"), str(status.get("gpu") or ""))
    return held if serves == status_of else None


def _nodes(console: Console, cluster: Cluster) -> tuple[NodeFacts, ...]:
    found = cluster.nodes()
    if found is None:
        console.print(
            Text(
                "  You may not look at nodes, so memory is not fitted here; the operator's own figures are in"
                " CapacityFits",
                style="yellow",
            )
        )
        return (ANY_NODE,)
    return tuple(kept.value for kept in map(projections.node, found) if kept is not None)


def _show(console: Console, spec: R1PlusDeploymentSpec, resolved: Target | Problem) -> None:
    if isinstance(resolved, Problem):
        console.print(Text(f"  The spec cannot be served: {resolved.condition}=False, {resolved.reason}", style="red"))
        console.print(Text(f"  {resolved.message}"))
        if resolved.choice:
            plan_text.show_lines(console, "Engines", plan_text.others_lines(resolved.choice))
        return
    plan_text.show_lines(console, "Engine", plan_text.engine_lines(resolved))
    plan_text.show_lines(console, "Batch, context and memory", plan_text.memory_lines(spec, resolved))


def _serving(console: Console, status: Json, resolved: Target | Problem) -> None:
    """What takes traffic, where that is not what the spec asks for."""
    engine, revision = status.get("engine", ""), status.get("revision", "")
    if not revision:
        lines = ["nothing takes traffic yet; `r1plus status` says why"]
    else:
        lines = [f"revision {revision}: {engine}, batch {status.get('batch')}, context {status.get('context')} tokens"]
        if isinstance(resolved, Target) and engine != resolved.engine.name:
            lines.append(f"the spec asks for {resolved.engine.name}; `r1plus status` says why it does not serve")
    plan_text.show_lines(console, "Now", lines)
