"""What the operator's metrics tell of each deployment. Written by the reconciler after every pass that was carried out.

Every label set exists from the first pass on, so that a first increment is one, and goes with the deployment.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics import MetricWrapperBase

from r1plus_contract import metrics
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.breach import FELL, REQUESTED
from r1plus_operator.plan.facts import Facts
from r1plus_operator.plan.inputs import Json
from r1plus_policies.response import BLOCKING

Key = tuple[str, str]
_WHOSE: Final = ("namespace", "deployment")
_VALUES: Final = {"True": 1, "False": 0}


class DeploymentMetrics:
    """Series of all deployments, each removed with its deployment."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, [*_WHOSE, *labels], registry=registry)

        self._info = gauge(metrics.DEPLOYMENT_INFO, "1 for what takes traffic.", "revision", "tier", "engine")
        self._condition = gauge(metrics.DEPLOYMENT_CONDITION, "1 True, 0 False, -1 Unknown.", "type")
        self._threshold = gauge(metrics.DEPLOYMENT_THRESHOLD_RATIO, "spec.accuracy.threshold.")
        self._pool = gauge(metrics.POOL_EVIDENCE_RATIO, "Pooled evidence; 1 alarms.", "revision", "detector")
        self._blocked = gauge(metrics.ROLLBACK_BLOCKED, "1 while this bars an answer to a fall.", "reason")
        self._refused = gauge(metrics.CANDIDATE_REFUSED, "1 while the gate refuses what the spec asks for.")
        self._rollbacks = Counter(metrics.ROLLBACKS_TOTAL, "Rollbacks made.", [*_WHOSE, "reason"], registry=registry)
        self._quarantines = Counter(metrics.QUARANTINES_TOTAL, "Pods quarantined.", [*_WHOSE], registry=registry)
        self._seen: dict[Key, tuple[str, ...]] = {}
        """Deployment -> the labels of its info."""
        self._pooled: dict[Key, str] = {}

    def record(self, key: Key, status: Json, facts: Facts) -> None:
        """Take in a pass: the status that it wrote and what it did."""
        if key not in self._seen:
            for cause in (FELL, REQUESTED):
                self._rollbacks.labels(*key, cause)
            self._quarantines.labels(*key)
        labels = (status.get("revision", ""), facts.tier, status.get("engine", ""))
        if self._seen.get(key, labels) != labels:
            self._info.remove(*key, *self._seen[key])
        self._seen[key] = labels
        self._info.labels(*key, *labels).set(1)
        self._threshold.labels(*key).set(facts.threshold)
        found = {c["type"]: c for c in status.get("conditions", ())}
        for kind in ConditionType:
            self._condition.labels(*key, kind.value).set(_VALUES.get(found.get(kind.value, {}).get("status", ""), -1))
        for why in BLOCKING:
            self._blocked.labels(*key, why.value).set(why.value == facts.blocked)
        refused = any(c["reason"] == Reason.CANDIDATE_REFUSED for c in found.values())
        self._refused.labels(*key).set(refused)
        if facts.rolled_back:
            self._rollbacks.labels(*key, facts.rolled_back).inc()
        if facts.quarantined:
            self._quarantines.labels(*key).inc()

    def evidence(self, key: Key, revision: str, accuracy: float, errors: float) -> None:
        """`Pools` says what the pooled detectors of a deployment have."""
        if self._pooled.get(key, revision) != revision:
            self._forget_pool(key)
        self._pooled[key] = revision
        self._pool.labels(*key, revision, "accuracy").set(accuracy)
        self._pool.labels(*key, revision, "errors").set(errors)

    def forget(self, key: Key) -> None:
        """The deployment is gone."""
        self._forget_pool(key)
        labels = self._seen.pop(key, None)
        if labels is None:
            return
        self._info.remove(*key, *labels)
        for kind in ConditionType:
            self._condition.remove(*key, kind.value)
        for why in BLOCKING:
            self._blocked.remove(*key, why.value)
        for cause in (FELL, REQUESTED):
            self._rollbacks.remove(*key, cause)
        whole: tuple[MetricWrapperBase, ...] = (self._threshold, self._refused, self._quarantines)
        for metric in whole:
            metric.remove(*key)

    def _forget_pool(self, key: Key) -> None:
        if revision := self._pooled.pop(key, ""):
            for detector in ("accuracy", "errors"):
                self._pool.remove(*key, revision, detector)
