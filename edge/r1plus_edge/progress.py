"""How far `serve` is, from what the plan and the monitors say. It decides nothing."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from r1plus_contract.gateway import DataReason, DataState
from r1plus_contract.names import CONTAINER_TRITON, PORT_MONITOR
from r1plus_contract.verdict import MonitorReport, Phase, Verdict
from r1plus_edge.controller import Controller
from r1plus_edge.gateway import EdgeGateway
from r1plus_edge.pods.container import Container
from r1plus_edge.pods.places import LOOPBACK
from r1plus_edge.pods.pod import LocalPod
from r1plus_edge.report import Reporter, ServePhase, describe_data, list_conditions
from r1plus_edge.start.listening import Listening
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.observation import Json

_FULL_SCHEMAS: Final = 0.8
_PERCENT: Final = re.compile(r"\d+ %")
LOAD, GATE, GATEWAY = "load", "gate", "gateway"
"""Steps of a start that passes show."""


class StartProgress:
    """Tells each step of the start once, and the state from then on."""

    def __init__(self, reporter: Reporter, listening: Listening, has_key: Callable[[], bool]) -> None:
        """`has_key`: whether there is an API key to call with."""
        self._has_key = has_key
        self._is_announced = False
        self._reporter = reporter
        self._listening = listening
        self._step_began = time.monotonic()
        self._told: set[str] = set()
        self._notes: set[str] = set()
        self._failing: set[str] = set()
        self._data_reason: DataReason | None = None

    def tell(self, controller: Controller, gateway: EdgeGateway, data: DataState | None, *, is_routing: bool) -> bool:
        """Tell what is new; return whether all is steady.

        `data`: what the gateway says of its data; `is_routing`: whether it sends requests to a pod.
        """
        status: Json = controller.objects.deployment["status"]
        known = controller.list_pods()
        pods = [pod for pod in known if not pod.is_terminating]
        newest = pods[-1] if pods else None
        report = controller.reports.get(newest.name) if newest else None
        serving = controller.serving_pod
        is_serving = serving is not None and gateway.pod.is_ready and is_routing
        self._tell_steps(status, newest, report, is_serving=is_serving)
        if known and _is_refused(status):  # Its pod ends in the pass that refuses it.
            self._tell_gate(controller.reports.get(known[-1].name))
        phase = self._find_phase(status, report, is_serving=is_serving)
        conditions = list_conditions(status.get("conditions", ()))
        data_problem = describe_data(data, controller.folder)
        failing = [one for pod in (*pods, gateway.pod) for one in pod.containers if one.is_failing]
        self._tell_conditions(conditions)
        self._tell_data(data, data_problem)
        self._tell_failures(failing)
        watched = controller.reports.get(serving.name) if serving else report
        asked = controller.request.spec  # Of an update, too.
        self._reporter.update(
            phase=phase,
            tier=asked.tier.value,
            threshold=float(asked.accuracy.threshold),
            message=self._find_message(status, phase),
            url=self._listening.local_url,
            metrics_url=gateway.metrics_url,
            monitor_url=f"http://{LOOPBACK}:{newest.ports[PORT_MONITOR]}" if newest else "",
            engine=str(status.get("engine", "")),
            revision=str(status.get("revision", "")),
            verdict=str(status.get("verdict", "")),
            accuracy=str(status.get("accuracy", "")),
            suite=str(status.get("suite", "")),
            watch=watched.watch.standing.value if watched and watched.watch else "",
            search=gateway.search,
            schemas=describe_schemas(controller.schema_share),
            restarts=sum(pod.restarts for pod in (*pods, gateway.pod)),
            percent=compute_percent(report),
            conditions=(*conditions, *data_problem, *describe_unready(pods)),
            failures=tuple(one.describe_failure() for one in failing),
            rollback=describe_rollback(status),
        )
        if phase is ServePhase.SERVING and not self._is_announced and self._has_key():
            self._is_announced = True
            self._reporter.narrator.serving(self._reporter.status)
        return phase is ServePhase.REFUSED or (phase is ServePhase.SERVING and newest is serving)

    def note(self, text: str) -> None:
        """Tell anything else."""
        self._reporter.narrator.note(text)

    def _tell_steps(
        self, status: Json, pod: LocalPod | None, report: MonitorReport | None, *, is_serving: bool
    ) -> None:
        if pod is None:
            return
        if pod.find_container(CONTAINER_TRITON).has_started:
            self._end_step(LOAD, f"batch {status.get('batch', '?')}, context {status.get('context', '?')}")
        if GATE not in self._told and report is not None and report.phase is Phase.GATING and report.progress:
            text = f"suite {report.suite}: {report.progress.text}"
            self._reporter.narrator.progress(GATE, compute_percent(report), text)
        if status.get("revision"):
            self._tell_gate(report)
        if is_serving:
            self._end_step(GATEWAY, f"listens on {self._listening.local_url}")

    def _tell_gate(self, report: MonitorReport | None) -> None:
        """Tell what a gate has decided; after a refusal the next gate is a step of its own."""
        if report is None or report.gate is None:
            return
        gate = report.gate
        text = f"{gate.verdict.value}: {gate.items - gate.lost} of {gate.items} right, {gate.allowed} may be lost"
        text += f" ({gate.suite})" if report.ran_under else f"; measured {gate.decided_at}"
        self._end_step(GATE, text, gate.decided_at if gate.verdict is Verdict.FAIL else "")

    def _end_step(self, name: str, detail: str, occasion: str = "") -> None:
        """End a step, once each; `occasion`: of a step that may come again."""
        key = f"{name} {occasion}".strip()
        if key in self._told:
            return
        self._told.add(key)
        now = time.monotonic()
        self._reporter.end_step(name, detail, now - self._step_began)
        self._step_began = now

    def _find_phase(self, status: Json, report: MonitorReport | None, *, is_serving: bool) -> ServePhase:
        if is_serving:
            return ServePhase.SERVING
        if status.get("revision") and GATEWAY in self._told:
            return ServePhase.UNAVAILABLE
        if _is_refused(status):
            return ServePhase.REFUSED
        is_gating = report is not None and report.phase is Phase.GATING
        return ServePhase.GATING if is_gating else ServePhase.STARTING

    def _find_message(self, status: Json, phase: ServePhase) -> str:
        kind = ConditionType.QUALITY_VERIFIED if phase is ServePhase.REFUSED else ConditionType.READY
        return next((one["message"] for one in status["conditions"] if one["type"] == kind.value), "")

    def _tell_conditions(self, conditions: Sequence[str]) -> None:
        """Tell what stops the start, once each, and not for each percent: a failed engine, no room, a refusal."""
        for one in conditions:
            key = _PERCENT.sub("", one)
            if not one.startswith(f"{ConditionType.READY.value}: ") and key not in self._notes:
                self._notes.add(key)
                self._reporter.narrator.note(one)

    def _tell_data(self, data: DataState | None, problem: Sequence[str]) -> None:
        """Tell why the gateway's data cannot be used, or deletion waits: once, since figures in it change."""
        if data is not None and data.reason is not self._data_reason:
            self._data_reason = data.reason
            for one in problem:
                self._reporter.narrator.note(one)

    def _tell_failures(self, failing: Sequence[Container]) -> None:
        """Tell each container that ends again and again once, until it has run again."""
        names = {one.program.name for one in failing}
        for one in failing:
            if one.program.name not in self._failing:
                self._reporter.narrator.note(one.describe_failure())
        self._failing = names


def describe_unready(pods: Sequence[LocalPod]) -> tuple[str, ...]:
    """Return why containers of pods that were ready are not ready now, in the words of their probes."""
    return tuple(
        f"{one.program.name} is not ready: {one.not_ready}"
        for pod in pods
        if pod.has_been_ready
        for one in pod.containers
        if one.has_started and one.not_ready and one.pid is not None
    )


def describe_schemas(share: float | None) -> str:
    """Return how much of the engine's memory for compiled schemas is used, and what happens when it is full."""
    if share is None:
        return ""
    text = f"{share:.0%} of the memory for compiled ones used"
    return f"{text}: emptied when nothing runs; some further ones may be refused" if share >= _FULL_SCHEMAS else text


def describe_rollback(status: Json) -> str:
    """Return what is done about a drop of the accuracy, or what could be gone back to; empty: nothing of both."""
    if incident := status.get("incident"):
        tried = "; ".join(incident.get("tried", ()))
        return ". ".join(filter(None, (f"{incident['reason']} since {incident['since']}", tried, incident.get("next"))))
    return f"possible, to {status['lastGood']}" if status.get("lastGood") else ""


def _is_refused(status: Json) -> bool:
    return _find_reason(status, ConditionType.PROGRESSING) == Reason.CANDIDATE_REFUSED.value


def _find_reason(status: Json, kind: ConditionType) -> str:
    return next((one["reason"] for one in status.get("conditions", ()) if one["type"] == kind.value), "")


def compute_percent(report: MonitorReport | None) -> int:
    """Return how far a gate is."""
    progress = report.progress if report is not None else None
    return 100 * progress.done // progress.total if progress and progress.total else 0
