"""Tells a `Preview` to a person: the engine and why, memory term by term, walls, gate, objects."""

from collections.abc import Iterator, Sequence

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1plus_cli.preview import NOT_YET, Preview
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.observation import Json
from r1plus_policies.engine.selection import Choice

WHAT_FOR = {
    "NetworkPolicy": "the walls",
    "ServiceAccount": "no rights, no token",
    "ControllerRevision": "the immutable revision; later also its verdict",
    "ConfigMap": "read by the pods",
    "PersistentVolumeClaim": "holds the engine, once for the namespace",
    "Job": "brings the engine onto the volume; pods come after it",
    "Deployment": "the pods: Triton and its monitor",
    "PodDisruptionBudget": "a drain takes one pod at a time",
    "Service": "the one address; selects what takes traffic",
    "PodMonitor": "Prometheus scrapes monitor and Triton",
    "PrometheusRule": "the accuracy alerts",
}


def show(console: Console, preview: Preview) -> None:
    """Print one plan."""
    document = preview.document
    console.print(Text(f"{document.namespace}/{document.name}  ({document.source})", style="bold"))
    if isinstance(preview.resolved, Problem):
        _problem(console, preview.resolved)
        _unchecked(console, preview)
        return
    for title, lines in _sections(preview, preview.resolved):
        show_lines(console, title, lines)
    if preview.uninvited:
        console.print(Text(f"  {Reason.CALLER_NOT_ALLOWED}: {preview.uninvited}", style="red"))
    console.print(Text("Objects, in this order", style="bold cyan"))
    console.print(_objects(preview.objects))
    console.print(Text(f"  and, once a revision serves, PrometheusRule: {WHAT_FOR['PrometheusRule']}"))
    _unchecked(console, preview)


def _unchecked(console: Console, preview: Preview) -> None:
    if preview.unchecked:
        show_lines(console, "Not checked offline", list(preview.unchecked))


def show_lines(console: Console, title: str, lines: list[str]) -> None:
    """One section."""
    console.print(Text(title, style="bold cyan"))
    for line in lines:
        console.print(Text(f"  {line}"))


def as_yaml(preview: Preview) -> str:
    """The objects themselves, one document each; the owner's uid is only known once the CR is applied."""
    notes = [f"ownerReferences carry {NOT_YET} until the R1PlusDeployment exists."]
    if preview.problem:
        notes.append(f"No pod would be created: {preview.problem.reason}: {preview.problem.message}")
    if preview.uninvited:
        notes.append(f"{Reason.CALLER_NOT_ALLOWED}: {preview.uninvited}")
    notes += [f"Not checked offline: {line}" for line in preview.unchecked]
    comment = "".join(f"# {line}\n" for line in notes)
    return comment + yaml.safe_dump_all(list(preview.objects), sort_keys=False, width=120)


def _problem(console: Console, problem: Problem) -> None:
    console.print(Text(f"  No pod would be created: {problem.condition}=False, {problem.reason}", style="red"))
    console.print(Text(f"  {problem.message}"))
    if problem.choice:
        show_lines(console, "Engines", others_lines(problem.choice))


def _sections(preview: Preview, target: Target) -> Iterator[tuple[str, list[str]]]:
    yield "Engine", engine_lines(target)
    yield "Batch, context and memory", memory_lines(preview.spec, target)
    yield "Quality", _quality(preview, target)
    yield "Walls", _walls(preview.objects)


def engine_lines(target: Target) -> list[str]:
    """The engine chosen, how it is delivered, and why no other."""
    artifact = target.engine.spec.files
    way = f"onto volume {target.volume.name} from" if target.volume else "by"
    return [
        f"{target.engine.name}: {target.choice.why}",
        f"delivered {way} {artifact.source}, sha256 {artifact.sha256[:12]}… verified in the pod",
        *others_lines(target.choice),
    ]


def others_lines(choice: Choice) -> list[str]:
    """Why each other engine was not taken; those with one reason in one line."""
    by_why: dict[str, list[str]] = {}
    for other in choice.others:
        by_why.setdefault(other.why, []).append(other.name)
    return [f"not {', '.join(names)}: {why}" for why, names in by_why.items()]


def memory_lines(spec: R1PlusDeploymentSpec, target: Target) -> list[str]:
    """Batch and context, whose wish they are, and the memory term by term."""
    fit = target.fit
    asked = "as asked" if spec.batching.max_batch_size else "the engine's best that fits"
    length = "as asked" if spec.context.max_tokens else "the engine's own"
    return [
        f"batch {fit.batch} ({asked}), context {fit.context} tokens ({length})",
        fit.explain(),
        f"pods: {spec.replicas}, each with {target.engine.spec.requirements.cpu} CPU",
    ]


def _quality(preview: Preview, target: Target) -> list[str]:
    accuracy, header = preview.spec.accuracy, target.suite.header
    strata = ", ".join(f"{name} {count}" for name, count in target.suite.strata().items())
    enforced = {
        "Enforce": "no traffic before a Pass on this very engine, batch and hardware",
        "Observe": "serves at once and is watched; a failing engine raises the alert, not the gate",
    }
    inherited = target.engine.spec.reference.inherited_from
    known = f"{header.version}: {header.items} items ({strata}), sha256 {header.sha256[:12]}…"
    lines = [
        f"suite {header.name} {known}" if header.items else f"suite {header.name}: only the cluster has it",
        f"threshold {accuracy.threshold:g}; gate {accuracy.gate}: {enforced[accuracy.gate.value]}",
        f"after that {accuracy.probes_per_minute} probes a minute and pod, and the alert R1PlusAccuracyBelowThreshold",
    ]
    if inherited:
        lines.append(f"nobody has measured {target.engine.name} yet: its reference is inherited from {inherited}")
    return lines


def _walls(objects: Sequence[Json]) -> list[str]:
    policy = next((item["spec"] for item in objects if item["kind"] == "NetworkPolicy"), None)
    if policy is None:
        return ["none"]
    lines = [f"in:  {_peers(rule.get('from', []))} to {_ports(rule)}" for rule in policy.get("ingress", [])]
    lines += [f"out: to {_peers(rule.get('to', []))}, {_ports(rule)}" for rule in policy.get("egress", [])]
    return [*lines, "everything else is dropped, both ways"]


def _peers(peers: list[Json]) -> str:
    return ", ".join(_peer(peer) for peer in peers)


def _peer(peer: Json) -> str:
    space = peer.get("namespaceSelector", {}).get("matchLabels", {})
    pods = peer.get("podSelector", {}).get("matchLabels", {})
    where = f"namespace {' '.join(space.values())}" if space else "this namespace"
    return f"{' '.join(pods.values())} in {where}" if pods else where


def _ports(rule: Json) -> str:
    ports = sorted({str(port["port"]) for port in rule.get("ports", [])}, key=int)
    return f"{'port' if len(ports) == 1 else 'ports'} {', '.join(ports)}"


def _objects(objects: Sequence[Json]) -> Table:
    table = Table.grid(padding=(0, 2))
    for item in objects:
        name = Text(item["metadata"]["name"], no_wrap=True)
        table.add_row("", Text(item["kind"], no_wrap=True), name, Text(WHAT_FOR.get(item["kind"], ""), style="dim"))
    return table
