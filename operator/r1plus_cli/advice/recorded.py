"""What a cluster has measured: gates that its registry recorded, on this very suite. Nothing is written there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from r1plus_cli.advice.figures import EngineFigures, Exclusion
from r1plus_cli.cluster.interface import Cluster, Json
from r1plus_cli.errors import CliError
from r1plus_contract.history import Evaluation, Evaluations
from r1plus_contract.suites.suite import Suite


@dataclass(frozen=True, slots=True)
class Recorded:
    """Engines of a cluster that were measured on the suite, those that were not, and what could not be read."""

    figures: tuple[EngineFigures, ...]
    exclusions: tuple[Exclusion, ...]
    problem: str = ""


def read_recorded(
    cluster: Cluster, read_evaluations: Callable[[], Evaluations], suite: Suite, namespace: str
) -> Recorded:
    """Return what is known of the cluster's engines. Raises CliError where its catalog cannot be read."""
    tiers = {str(one["metadata"]["name"]): str(one["spec"].get("tier", "")) for one in cluster.list_engines()}
    try:
        evaluations, problem = read_evaluations().items, ""
    except CliError as error:
        evaluations, problem = (), f"What the cluster has measured is not known: {error}"
    figures = select_newest(evaluations, tiers, suite)
    measured = {one.engine for one in figures}
    serving = _find_serving(cluster.list_deployments(namespace))
    exclusions = [
        Exclusion(name, tier, _explain_unmeasured(name, serving, suite))
        for name, tier in sorted(tiers.items())
        if tier and name not in measured
    ]
    return Recorded(tuple(figures), tuple(exclusions), problem)


def select_newest(evaluations: Iterable[Evaluation], tiers: dict[str, str], suite: Suite) -> list[EngineFigures]:
    """Return the newest gate of each engine on this suite. `evaluations`: newest first."""
    newest: dict[str, EngineFigures] = {}
    for one in evaluations:
        report = one.report
        is_same = report.suite_hash == suite.header.sha256 and report.scorer_version == suite.header.scorer_version
        # A compromised monitor may have reported figures that no gate on this suite can have.
        is_possible = 0 <= report.lost <= report.items == len(suite.items)
        if is_same and is_possible and one.engine not in newest:
            source = f"{one.namespace}/{one.deployment}"
            newest[one.engine] = EngineFigures(
                one.engine, tiers.get(one.engine, ""), source, report, report.batch, measured_at=report.decided_at
            )
    return list(newest.values())


def _find_serving(deployments: Iterable[Json]) -> dict[str, str]:
    """Return engine -> a deployment that it serves."""
    return {
        str(engine): f"{one['metadata']['namespace']}/{one['metadata']['name']}"
        for one in deployments
        if (engine := one.get("status", {}).get("engine"))
    }


def _explain_unmeasured(engine: str, serving: dict[str, str], suite: Suite) -> str:
    where = f"it serves {serving[engine]}, but" if engine in serving else "it is in the cluster's catalog, but"
    return f"{where} no gate on {suite.header.name} is recorded there; set spec.accuracy.suite of a deployment to it"
