"""A `Preview` as text: engine and reasons, memory term by term, network policies, gate, objects."""

from collections.abc import Iterator, Sequence

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1plus_cli.deployment.preview import NOT_YET, Preview
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.selection import Problem, Target
from r1plus_operator.plan.observation import Json
from r1plus_policies.engine.selection import Choice
from r1plus_policies.gate.verdict import Rules

WHAT_FOR = {
    "NetworkPolicy": "network isolation",
    "ServiceAccount": "no rights, no token",
    "ControllerRevision": "the immutable revision; later also its verdict",
    "ConfigMap": "read by the pods",
    "PersistentVolumeClaim": "volume of the engine, once per namespace",
    "Job": "puts the engine on the volume; pods follow",
    "Deployment": "the pods: Triton and its monitor",
    "PodDisruptionBudget": "a drain takes one pod at a time",
    "Service": "the address; selects the revision that takes traffic",
    "PodMonitor": "Prometheus scrapes monitor and Triton",
    "PrometheusRule": "the accuracy alerts",
}


def show(console: Console, preview: Preview) -> None:
    """Print one plan."""
    document = preview.document
    console.print(Text(f"{document.namespace}/{document.name}  ({document.source})", style="bold"))
    if isinstance(preview.resolved, Problem):
        _show_problem(console, preview.resolved)
        _show_unchecked(console, preview)
        return
    for title, lines in _list_sections(preview, preview.resolved):
        show_lines(console, title, lines)
    if preview.disallowed_callers:
        console.print(Text(f"  {Reason.CALLER_NOT_ALLOWED}: {preview.disallowed_callers}", style="red"))
    console.print(Text("Objects, in this order", style="bold cyan"))
    console.print(_build_object_table(preview.objects))
    console.print(Text(f"  and, once a revision serves, PrometheusRule: {WHAT_FOR['PrometheusRule']}"))
    _show_unchecked(console, preview)


def _show_unchecked(console: Console, preview: Preview) -> None:
    if preview.unchecked:
        show_lines(console, "Not checked offline", list(preview.unchecked))


def show_lines(console: Console, title: str, lines: list[str]) -> None:
    """Print one section."""
    console.print(Text(title, style="bold cyan"))
    for line in lines:
        console.print(Text(f"  {line}"))


def format_yaml(preview: Preview) -> str:
    """Return the objects, one document each. The owner's uid is only known after the CR is applied."""
    notes = [f"ownerReferences carry {NOT_YET} until the R1PlusDeployment exists."]
    if preview.problem:
        notes.append(f"No pod would be created: {preview.problem.reason}: {preview.problem.message}")
    if preview.disallowed_callers:
        notes.append(f"{Reason.CALLER_NOT_ALLOWED}: {preview.disallowed_callers}")
    notes += [f"Not checked offline: {line}" for line in preview.unchecked]
    comment = "".join(f"# {line}\n" for line in notes)
    return comment + yaml.safe_dump_all(list(preview.objects), sort_keys=False, width=120)


def _show_problem(console: Console, problem: Problem) -> None:
    console.print(Text(f"  No pod would be created: {problem.condition}=False, {problem.reason}", style="red"))
    console.print(Text(f"  {problem.message}"))
    if problem.choice:
        show_lines(console, "Engines", format_rejection_lines(problem.choice))


def _list_sections(preview: Preview, target: Target) -> Iterator[tuple[str, list[str]]]:
    yield "Engine", format_engine_lines(target)
    yield "Batch, context and memory", format_memory_lines(preview.spec, target)
    yield "Quality", _format_quality_lines(preview, target)
    yield "Network policies", _format_network_policy_lines(preview.objects)


def format_engine_lines(target: Target) -> list[str]:
    """Return the selected engine, how it is delivered, and why no other was selected."""
    artifact, attention = target.engine.spec.files, target.engine.spec.attention
    route = f"onto volume {target.volume.name} from" if target.volume else "by"
    return [
        f"{target.engine.name}: {target.choice.why}",
        f"delivered {route} {artifact.source}, sha256 {artifact.sha256[:12]}… verified in the pod",
        *([f"attention: {attention.describe()}"] if attention else []),
        *format_rejection_lines(target.choice),
    ]


def format_rejection_lines(choice: Choice) -> list[str]:
    """Return why each other engine was rejected; engines with the same reason share a line."""
    names_by_reason: dict[str, list[str]] = {}
    for other in choice.others:
        names_by_reason.setdefault(other.why, []).append(other.name)
    return [f"not {', '.join(names)}: {reason}" for reason, names in names_by_reason.items()]


def format_memory_lines(spec: R1PlusDeploymentSpec, target: Target) -> list[str]:
    """Return batch and context with their origin, and the memory term by term."""
    fit = target.fit
    batch_origin = "from the spec" if spec.batching.max_batch_size else "the engine's best that fits"
    context_origin = "from the spec" if spec.context.max_tokens else "the engine's own"
    return [
        f"batch {fit.batch} ({batch_origin}), context {fit.context} tokens ({context_origin})",
        fit.explain(),
        f"pods: {spec.replicas}, each with {target.engine.spec.requirements.cpu} CPU",
    ]


def _format_quality_lines(preview: Preview, target: Target) -> list[str]:
    accuracy, header = preview.spec.accuracy, target.suite.header
    strata = ", ".join(f"{name} {count}" for name, count in target.suite.strata().items())
    gate_texts = {
        "Enforce": "takes traffic only after a Pass on this engine, batch and hardware",
        "Observe": "serves at once without a Pass; a failing engine raises the alert",
    }
    reference_engine = target.engine.spec.reference.inherited_from
    suite_text = f"{header.version}: {header.items} items ({strata}), sha256 {header.sha256[:12]}…"
    lines = [
        f"suite {header.name} {suite_text}" if header.items else f"suite {header.name}: available only in the cluster",
        f"threshold {accuracy.threshold:g}; gate {accuracy.gate}: {gate_texts[accuracy.gate.value]}",
        *_format_gate_cost_lines(preview, target),
        f"after that {accuracy.probes_per_minute} probes a minute and pod, and the alert R1PlusAccuracyBelowThreshold",
    ]
    if reference_engine:
        lines.append(f"{target.engine.name} is not measured yet: its reference is inherited from {reference_engine}")
    return lines


def _format_gate_cost_lines(preview: Preview, target: Target) -> list[str]:
    """Return what the gate of a revision asks for; nothing where the suite's items are not known here."""
    header = target.suite.header
    if not header.items:
        return []
    rules = Rules(preview.spec.accuracy.threshold, target.fit.batch)
    answer_tokens = header.sampling.max_new_tokens
    most_tokens = header.items * (rules.full_sweeps + 1) * answer_tokens
    in_batch = f"{rules.full_sweeps} x {header.items} answers, {rules.batch} at once"
    most = f"{most_tokens:,} tokens at most ({answer_tokens} an answer), more where one fails alone and is asked again"
    return [f"its gate asks for {in_batch}, then {header.items} one by one: {most}"]


def _format_network_policy_lines(objects: Sequence[Json]) -> list[str]:
    policy = next((item["spec"] for item in objects if item["kind"] == "NetworkPolicy"), None)
    if policy is None:
        return ["none"]
    lines = [
        f"in:  {_format_peers(rule.get('from', []))} to {_format_ports(rule)}" for rule in policy.get("ingress", [])
    ]
    lines += [
        f"out: to {_format_peers(rule.get('to', []))}, {_format_ports(rule)}" for rule in policy.get("egress", [])
    ]
    return [*lines, "everything else is dropped, both ways"]


def _format_peers(peers: list[Json]) -> str:
    return ", ".join(_format_peer(peer) for peer in peers)


def _format_peer(peer: Json) -> str:
    space = peer.get("namespaceSelector", {}).get("matchLabels", {})
    pods = peer.get("podSelector", {}).get("matchLabels", {})
    where = f"namespace {' '.join(space.values())}" if space else "this namespace"
    return f"{' '.join(pods.values())} in {where}" if pods else where


def _format_ports(rule: Json) -> str:
    ports = sorted({str(port["port"]) for port in rule.get("ports", [])}, key=int)
    return f"{'port' if len(ports) == 1 else 'ports'} {', '.join(ports)}"


def _build_object_table(objects: Sequence[Json]) -> Table:
    table = Table.grid(padding=(0, 2))
    for item in objects:
        name = Text(item["metadata"]["name"], no_wrap=True)
        table.add_row("", Text(item["kind"], no_wrap=True), name, Text(WHAT_FOR.get(item["kind"], ""), style="dim"))
    return table
