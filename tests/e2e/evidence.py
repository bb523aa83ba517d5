"""What a person would look at when a deployment is stuck: conditions, pods, events, the logs' last lines."""

from typing import Any

from e2e.kube import UNREACHABLE, Json, Kube
from r1plus_cli.deployment.view import build_view

EVENTS = 12
LOG_LINES = 8


def of_deployment(kube: Kube, namespace: str, name: str) -> str:
    """Everything about one R1PlusDeployment, ready to be printed."""
    cr = kube.get("r1plusdeployments", namespace, name)
    if cr is None:
        return f"There is no R1PlusDeployment {namespace}/{name}.\n{of_operator(kube)}"
    view = build_view(cr)
    lines = [f"{view.key}: {view.format_headline()}"]
    lines += [f"  {c.status:<7} {c.type} {c.reason}: {c.message}" for c in view.conditions]
    pods = kube.pods_of(namespace, name)
    lines += [line for pod in pods for line in _pod_lines(kube, pod)]
    lines += _event_lines(kube, namespace)
    return "\n".join([*lines, of_operator(kube)])


def of_operator(kube: Kube) -> str:
    """The operator's pods and the end of their logs."""
    pods = kube.all("pods", None, "app.kubernetes.io/name=r1plus-operator")
    lines = [line for pod in pods for line in _pod_lines(kube, pod)]
    return "\n".join(["Operator:", *(lines or ["  no pod of the operator runs"])])


def _pod_lines(kube: Kube, pod: Json) -> list[str]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    status = pod.get("status", {})
    lines = [f"  pod {name}: {status.get('phase')}"]
    states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    for one in states:
        lines.append(f"    {one['name']}: {_state(one)}, ready {one['ready']}, {one['restartCount']} restarts")
        if not one["ready"]:
            lines += [f"      | {line}" for line in _log(kube, namespace, name, one["name"])]
    conditions = [c for c in status.get("conditions", []) if c["status"] != "True" and c.get("message")]
    return lines + [f"    {c['type']}: {c['message']}" for c in conditions]


def _state(container: Json) -> str:
    for kind, detail in container.get("state", {}).items():
        words = [kind, detail.get("reason", ""), detail.get("message", "")]
        return " ".join(word for word in words if word)
    return "unknown"


def _log(kube: Kube, namespace: str, pod: str, container: str) -> list[str]:
    try:
        text: Any = kube.core.read_namespaced_pod_log(pod, namespace, container=container, tail_lines=LOG_LINES)
    except UNREACHABLE as error:
        return [f"no log: {' '.join(str(error).split())[:200]}"]
    return str(text or "").splitlines()


def _event_lines(kube: Kube, namespace: str) -> list[str]:
    events = kube.all("events", namespace)
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return [
        f"  event {e.get('reason')} {e['involvedObject'].get('kind')}/{e['involvedObject'].get('name')}:"
        f" {' '.join(str(e.get('message', '')).split())[:300]}"
        for e in events[-EVENTS:]
    ]
