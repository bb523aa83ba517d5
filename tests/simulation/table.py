"""What people read of a run: a row for each event and for each write that matters."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from r1plus_contract import names
from r1plus_operator.runtime.lease import LEASE
from simulation.invariants import Violation
from simulation.schedule import Schedule
from simulation.world import Row, World
from support.simulation.server import Change

Json = dict[str, Any]
_SHOWN_ANNOTATIONS = (names.ANNOTATION_PROMOTED_AT, names.ANNOTATION_VERDICT, names.ANNOTATION_ROLLBACK)


def record(world: World, update: Callable[[bytes], object], change: Change, sender: str) -> None:
    """Add a write to the digest of the run, and to its table if it matters."""
    meta = (change.after or change.before or {})["metadata"]
    where = f"{meta.get('namespace', '')}/{meta['name']}"
    line = f"{change.at:.3f} {change.verb} {change.resource.kind} {where} {change.version} {change.user} {sender}\n"
    update(line.encode())
    if change.resource.kind == LEASE.kind:
        before, after = (((one or {}).get("spec") or {}).get("holderIdentity") for one in (change.before, change.after))
        if before != after:
            world.note(sender, f"Lease: {before} -> {after}")
        return
    if text := _describe(change):
        world.note(sender or change.user, f"{change.resource.kind} {where}: {text}")


def _describe(change: Change) -> str:
    kind, before, after = change.resource.kind, change.before or {}, change.after or {}
    if kind == "Service":
        return _compare(*(_read(one, "spec", "selector", names.LABEL_REVISION) for one in (before, after)), "selects")
    if kind == "Deployment":
        return _compare(*(_read(one, "spec", "replicas") for one in (before, after)), "replicas")
    if kind == "ControllerRevision":
        return _describe_revision(before, after)
    if kind == names.KIND_DEPLOYMENT:
        return _describe_cr(before, after)
    if kind == "Pod":
        ready = _compare(*(_read_condition(one, "Ready")[:1] for one in (before, after)), "Ready")
        serving = _compare(
            *(_read(one, "metadata", "labels", names.LABEL_SERVING) for one in (before, after)), "serving"
        )
        return "; ".join(filter(None, (ready, serving)))
    return ""


def _describe_revision(before: Json, after: Json) -> str:
    if not after:
        return "deleted"
    texts = []
    for key in _SHOWN_ANNOTATIONS:
        old, new = (_read(one, "metadata", "annotations", key) for one in (before, after))
        if old != new:
            texts.append(f"{key.partition('/')[2]} {_shorten(new)}")
    return "; ".join(texts) if before else "; ".join(["created", *texts])


def _describe_cr(before: Json, after: Json) -> str:
    texts = []
    if before.get("spec") != after.get("spec"):
        texts.append(f"spec {json.dumps(after.get('spec'))}")
    if _read(before, "metadata", "annotations") != _read(after, "metadata", "annotations"):
        texts.append(f"annotations {sorted(_read(after, 'metadata', 'annotations') or ())}")
    for kind in ("QualityVerified", "Progressing", "Ready"):
        old, new = (_read_condition(one, kind) for one in (before, after))
        if old != new:
            texts.append(f"{kind} {'/'.join(new)}")
    texts.append(_compare(*(_read(one, "status", "incident", "reason") for one in (before, after)), "incident"))
    return "; ".join(filter(None, texts))


def _read_condition(obj: Json, kind: str) -> tuple[str, ...]:
    conditions = _read(obj, "status", "conditions") or ()
    return next(((c["status"], c.get("reason", "")) for c in conditions if c["type"] == kind), ())


def _read(obj: Json, *path: str) -> Any:
    value: Any = obj
    for key in path:
        value = (value or {}).get(key)
    return value


def _compare(before: Any, after: Any, what: str) -> str:
    return "" if before == after else f"{what} {_shorten(before)} -> {_shorten(after)}"


def _shorten(value: Any) -> str:
    text = str(value)
    try:
        parsed = json.loads(text)
    except ValueError:
        return text[:80]
    if isinstance(parsed, dict) and "reports" in parsed:
        return ", ".join(
            f"{r['verdict']} {r['lost']}/{r['items']} at {r['threshold']}{' control' if r.get('control') else ''}"
            for r in parsed["reports"]
        )
    return text[:160]


def format_failure(schedule: Schedule, violation: Violation, rows: Sequence[Row], most: int = 400) -> str:
    """Return a failure for people: the promise, how it broke, what happened, and what was written."""
    lines = [
        f"seed {schedule.seed}: {violation.invariant} is broken at {violation.at:.1f} s",
        f"  promise: {violation.sentence}",
        f"  found:   {violation.text}",
        "",
        "starts:",
        *(f"  {start.namespace}/{start.name}: {json.dumps(start.spec)}; lost items by context {start.lost}" for start in schedule.starts),
        "",
        f"{'seconds':>9}  {'who':<22} what",
    ]  # fmt: skip
    shown = rows[-most:]
    if len(shown) < len(rows):
        lines.append(f"{'':>9}  ... {len(rows) - len(shown)} rows before ...")
    lines += [f"{row.at:>9.1f}  {row.who:<22} {row.what}" for row in shown]
    return "\n".join(lines)
