"""The chart's alerts (the operator's own, and those on gateways), judged by the real promtool: when they fire, when they are silent, and that any change of
a comparison, a selector or a duration would be found out."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from r1plus_contract import metrics
from r1plus_contract.gateway import GATEWAY_ERRORS, DataReason, GatewayOutcome
from r1plus_operator.plan.manifests.promql import format_series
from support.promtool import Case, Judged, Rule, mutants

ROOT = Path(__file__).parents[3]
JOB = "r1plus-system/r1plus-operator"
VALUES = {"@JOB@": JOB, "@ERROR_RATIO@": "0.05", "@FIRST_TOKEN_SECONDS@": "5"}


def read_rules(name: str) -> dict[str, Rule]:
    """Return the rules of a file as the chart writes them with its default values."""
    text = (ROOT / "monitoring" / "rules" / name).read_text()
    for placeholder, value in VALUES.items():
        text = text.replace(placeholder, value)
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    return {" ".join(filter(None, (rule["alert"], rule["labels"].get("cause")))): rule for rule in rules}


RULES: dict[str, Rule] = {**read_rules("operator.yaml"), **read_rules("gateway.yaml")}
STALLED = metrics.ALERT_OPERATOR_STALLED


def of(metric: str, pod: str = "a", **labels: str) -> str:
    """A series of a replica."""
    return format_series(metric, **({"job": JOB, "pod": pod} | labels))


def passes(result: str, **labels: str) -> str:
    return of(metrics.RECONCILE_TOTAL, **({"result": result} | labels))


def about(metric: str, **labels: str) -> str:
    """What the operator says of a deployment."""
    return of(metric, **({"namespace": "team", "deployment": "credit"} | labels))


ELSE = {"job": "somebody/else"}
UP, LEADS, QUEUE = of("up"), of(metrics.LEADER), of(metrics.QUEUE_DEPTH)
STANDBY = {of("up", "b"): "1x60", of(metrics.LEADER, "b"): "0x60", of(metrics.QUEUE_DEPTH, "b"): "9x60", passes("ok", pod="b"): "0x60", passes("error", pod="b"): "0x60"}  # fmt: skip
SOUND = {UP: "1x60", LEADS: "1x60", QUEUE: "0x60", passes("ok"): "0+1x60", passes("error"): "0x60", **STANDBY}
IDLE = {passes("ok"): "0x19 1x19 2x19", passes("error"): "0x60"}
"""A pass every 19 minutes."""

OVERDUE = about(metrics.ROLLOUT_OVERDUE)
REFUSED = about(metrics.CANDIDATE_REFUSED)
REVISION_LOST = about(metrics.REVISION_LOST)
WAITS_FOR_CANDIDATE = about(metrics.ROLLBACK_BLOCKED, reason="RolloutUnderWay")
VULNERABLE = about(metrics.RUNTIME_VULNERABLE)
WAVE_FAILED = about(metrics.REFRESH_FAILED)
WAITING = of(metrics.FACTS_WAITING)
BLOCKED = about(metrics.ROLLBACK_BLOCKED, reason="NoCapacity")
ROLLED_BACK = about(metrics.ROLLBACKS_TOTAL, reason="BelowThreshold")


def tries(outcome: str, namespace: str = "team", **labels: str) -> str:
    """Of the prober's newest run in a tenant."""
    return of(metrics.ISOLATION_TRIES, **({"namespace": namespace, "outcome": outcome} | labels))


def holds(kind: str, **labels: str) -> str:
    """A condition of the deployment."""
    return about(metrics.DEPLOYMENT_CONDITION, **({"type": kind} | labels))


VERIFIED = of(metrics.ISOLATION_VERIFIED, namespace="team")
GOT_THROUGH, HELD = tries("open"), tries("held")
SHOWN, SERVES = holds("IsolationVerified"), holds("Ready")

READY_PODS = of(metrics.GATEWAY_READY_PODS, namespace="team")


def ended(outcome: GatewayOutcome, **labels: str) -> str:
    """Requests of a gateway's caller that ended so."""
    own = {"namespace": "team", "pod": "gw-1", "model": "credit", "key": "k1", "outcome": outcome.value}
    return format_series(metrics.GATEWAY_REQUESTS_TOTAL, **(own | labels))


def data(reason: DataReason, **labels: str) -> str:
    own = {"namespace": "team", "pod": "gw-1", "reason": reason.value}
    return format_series(metrics.GATEWAY_DATA_STATE, **(own | labels))


def stores(values: str, **labels: str) -> dict[str, str]:
    """What a tenant has stored of 100 bytes."""
    own = {"namespace": "team", "pod": "gw-1", **labels}
    return {
        format_series(metrics.GATEWAY_CONTENT_BYTES, **own): values,
        format_series(metrics.GATEWAY_CONTENT_LIMIT_BYTES, **own): "100x60",
    }


def started(within: str, **labels: str) -> str:
    """Requests whose first token came within so many seconds."""
    own = {"namespace": "team", "pod": "gw-1", "model": "credit", "le": within}
    return format_series(f"{metrics.GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS}_bucket", **(own | labels))


def starts(early: str, late: str, **labels: str) -> dict[str, str]:
    """Requests that started within 2.5 s, and all."""
    return {started("2.5", **labels): early, started("10.0", **labels): late, started("+Inf", **labels): late}


ANSWERED, FAILED = ended(GatewayOutcome.ANSWERED), ended(GatewayOutcome.FAILED)
EXHAUSTED = ended(GatewayOutcome.BUDGET_EXHAUSTED)
LOST, DATA_READY = data(DataReason.KEY_LOST), data(DataReason.READY)
CASES = {
    metrics.ALERT_GATEWAY_DOWN: [
        Case("ready", {READY_PODS: "1x60"}, 0),
        Case("not ready", {READY_PODS: "0x60"}, 1, labels={"namespace": "team", "severity": "critical"}),
        Case("two pods, then one", {READY_PODS: "2x30 1x30"}, 0),
        Case("for 4 minutes", {READY_PODS: "0x60"}, 0, at="4m"),
        Case("for 6 minutes", {READY_PODS: "0x60"}, 1, at="6m"),
        Case("a restart", {READY_PODS: "1x40 0x2 1x20"}, 0),
        Case("two tenants", {READY_PODS: "0x60", of(metrics.GATEWAY_READY_PODS, namespace="other"): "0x60"}, 2),
        Case("told by two replicas", {READY_PODS: "0x60", of(metrics.GATEWAY_READY_PODS, "b", namespace="team"): "0x60"}, 1),
        Case("somebody else's word", {of(metrics.GATEWAY_READY_PODS, namespace="team", **ELSE): "0x60"}, 0),
    ],
    metrics.ALERT_GATEWAY_DATA_PROBLEM: [
        Case("nothing is wrong", {DATA_READY: "1x60", LOST: "0x60"}, 0),
        Case("a key is lost", {DATA_READY: "0x60", LOST: "1x60"}, 1, labels={"namespace": "team", "pod": "gw-1", "reason": "KeyLost", "severity": "warning"}),
        Case("for 9 minutes", {LOST: "1x60"}, 0, at="9m"),
        Case("for 11 minutes", {LOST: "1x60"}, 1, at="11m"),
        Case("of one of two pods", {LOST: "1x60", data(DataReason.READY, pod="gw-2"): "1x60"}, 1),
        Case("of two tenants", {LOST: "1x60", data(DataReason.FULL, namespace="other"): "1x60"}, 2),
        Case("it was repaired", {LOST: "1x40 0x20", DATA_READY: "0x40 1x20"}, 0),
    ],
    metrics.ALERT_GATEWAY_ERRORS: [
        Case("all are answered", {ANSWERED: "0+10x60", FAILED: "0x60"}, 0),
        Case("a tenth fails", {ANSWERED: "0+90x60", FAILED: "0+10x60"}, 1, labels={"namespace": "team", "model": "credit", "severity": "warning"}),
        Case("one of 25 fails", {ANSWERED: "0+96x60", FAILED: "0+4x60"}, 0),
        Case("as many as are allowed", {ANSWERED: "0+95x60", FAILED: "0+5x60"}, 0),
        Case("for 4 minutes", {ANSWERED: "0+90x60", FAILED: "0x41 10+10x19"}, 0, at="45m"),
        Case("for 12 minutes", {ANSWERED: "0+90x60", FAILED: "0x33 10+10x27"}, 1, at="46m"),
        Case("five of six in five minutes", {ANSWERED: "0x40 1x20", FAILED: "0+1x60"}, 1),
        Case("a single one now and then", {ANSWERED: "0+1x60", FAILED: "0+0.5x60"}, 0),
        Case("no queue has room", {ANSWERED: "0+9x60", ended(GatewayOutcome.OVERLOADED): "0+2x60"}, 1),
        Case("no pod can be reached", {ended(GatewayOutcome.UNAVAILABLE): "0+2x60"}, 1),
        Case("before the model was known", {ended(GatewayOutcome.UNAVAILABLE, model="", key=""): "0+2x60"}, 1, labels={"namespace": "team"}),
        Case("half are refused", {ANSWERED: "0+10x60", ended(GatewayOutcome.REFUSED): "0+10x60", FAILED: "0x60"}, 0),
        Case("what callers do wrong hides no failure", {ANSWERED: "0+90x60", FAILED: "0+10x60", ended(GatewayOutcome.REFUSED): "0+900x60", ended(GatewayOutcome.CANCELLED): "0+900x60"}, 1),
        Case("half leave, and others are limited", {ANSWERED: "0+10x60", ended(GatewayOutcome.CANCELLED): "0+10x60", ended(GatewayOutcome.RATE_LIMITED): "0+10x60"}, 0),
        Case("of two models", {ANSWERED: "0+10x60", FAILED: "0+9x60", ended(GatewayOutcome.FAILED, model="debit"): "0+9x60"}, 2),
        Case("of two keys and two pods", {ANSWERED: "0+10x60", FAILED: "0+9x60", ended(GatewayOutcome.FAILED, key="k2", pod="gw-2"): "0+9x60"}, 1),
    ],
    metrics.ALERT_GATEWAY_HIGH_LATENCY: [
        Case("in time", starts("0+10x60", "0+10x60"), 0),
        Case("a fifth is late", starts("0+8x60", "0+10x60"), 1, labels={"namespace": "team", "model": "credit", "severity": "warning"}),
        Case("just in time", {started("5.0"): "0+1x60", started("+Inf"): "0+9x60"}, 0),
        Case("one of 50 is late", starts("0+49x60", "0+50x60"), 0),
        Case("nobody asks", starts("5x60", "9x60"), 0),
        Case("all of a few are late", starts("0x60", "0+1x60"), 0),
        Case("all of 20 are late", starts("0x60", "0+2x60"), 1),
        Case("for 9 minutes", starts("0+8x60", "0+10x60"), 0, at="9m"),
        Case("for 13 minutes", starts("0+8x60", "0+10x60"), 1, at="13m"),
        Case("of two models", {**starts("0+8x60", "0+10x60"), **starts("0+8x60", "0+10x60", model="debit")}, 2),
        Case("of two pods, of which one is slow", {**starts("0+50x60", "0+50x60"), **starts("0+1x60", "0+2x60", pod="gw-2")}, 0),
    ],
    metrics.ALERT_GATEWAY_CONTENT_NEAR_LIMIT: [
        Case("nothing is stored", stores("0x60"), 0),
        Case("nine tenths", stores("90x60"), 0),
        Case("more", stores("91x60"), 1, labels={"namespace": "team", "severity": "warning"}),
        Case("for 14 minutes", stores("91x60"), 0, at="14m"),
        Case("for 16 minutes", stores("91x60"), 1, at="16m"),
        Case("of two replicas, which say the same", {**stores("95x60"), **stores("95x60", pod="gw-2")}, 1),
        Case("of two tenants", {**stores("95x60"), **stores("95x60", namespace="other")}, 2),
        Case("some was deleted", stores("95x40 50x20"), 0),
    ],
    metrics.ALERT_GATEWAY_BUDGET_EXHAUSTED: [
        Case("refused a minute ago", {EXHAUSTED: "0x43 1x17"}, 1, labels={"namespace": "team", "key": "k1", "severity": "warning"}),
        Case("never", {EXHAUSTED: "0x60"}, 0),
        Case("long ago", {EXHAUSTED: "0x9 1x51"}, 0),
        Case("of two models", {EXHAUSTED: "0x43 1x17", ended(GatewayOutcome.BUDGET_EXHAUSTED, model="debit"): "0x43 1x17"}, 1),
        Case("of two keys", {EXHAUSTED: "0x43 1x17", ended(GatewayOutcome.BUDGET_EXHAUSTED, key="k2"): "0x43 1x17"}, 2),
        Case("another limit", {ended(GatewayOutcome.RATE_LIMITED): "0x43 1x17", ANSWERED: "0+1x60"}, 0),
    ],
    f"{STALLED} absent": [
        Case("a leader and a standby", SOUND, 0),
        Case("no replica at all", {}, 1),
        Case("a replica that does not answer", {UP: "0x60"}, 1),
        Case("one of two answers", {UP: "0x60", of("up", "b"): "1x60"}, 0),
        Case("somebody else's program answers", {of("up", **ELSE): "1x60"}, 1),
        Case("none for 4 minutes", {UP: "0x60"}, 0, at="4m"),
        Case("none for 6 minutes", {UP: "0x60"}, 1, at="6m"),
        Case("replaced by another", {UP: "1x20 _x40", of("up", "b"): "_x23 1x37"}, 0),
    ],
    f"{STALLED} leaderless": [
        Case("a leader and a standby", SOUND, 0),
        Case("two standbys", {LEADS: "0x60", of(metrics.LEADER, "b"): "0x60"}, 1),
        Case("two standbys, and somebody else leads", {LEADS: "0x60", of(metrics.LEADER, "b", **ELSE): "1x60"}, 1),
        Case("somebody else does not lead", {of(metrics.LEADER, **ELSE): "0x60"}, 0),
        Case("no replica is another alert", {}, 0),
        Case("for 4 minutes", {LEADS: "0x60"}, 0, at="4m"),
        Case("for 6 minutes", {LEADS: "0x60"}, 1, at="6m"),
        Case("handed over", {LEADS: "1x20 0x40", of(metrics.LEADER, "b"): "0x21 1x39"}, 0),
    ],
    f"{STALLED} stuck": [
        Case("a leader and a standby", SOUND, 0),
        Case("keys wait, and no pass ends", SOUND | {QUEUE: "3x60", passes("ok"): "7x60"}, 1),
        Case("keys wait, and passes fail: another alert", SOUND | {QUEUE: "3x60", passes("ok"): "7x60", passes("error"): "0+1x60"}, 0),
        Case("keys wait, and passes are made", SOUND | {QUEUE: "3x60"}, 0),
        Case("nothing waits, and nothing is done", SOUND | {passes("ok"): "7x60"}, 0),
        Case("something waited a minute ago", SOUND | {QUEUE: "3x40 0 3x20", passes("ok"): "7x60"}, 0),
        Case("somebody else works", SOUND | {QUEUE: "3x60", passes("ok"): "7x60", passes("ok", **ELSE): "0+1x60"}, 1),
        Case("somebody else's queue", SOUND | {passes("ok"): "7x60", of(metrics.QUEUE_DEPTH, **ELSE): "3x60"}, 0),
        Case("a standby's queue, whose namesake leads elsewhere", {of(metrics.QUEUE_DEPTH, "b"): "9x60", of(metrics.LEADER, "b", **ELSE): "1x60", passes("ok"): "7x60"}, 0),
    ],
    f"{STALLED} failing": [
        Case("a leader and a standby", SOUND, 0),
        Case("a pass every 19 minutes", SOUND | IDLE, 0),
        Case("no pass goes well", SOUND | {passes("ok"): "7x60", passes("error"): "0+1x60"}, 1),
        Case("one fails again and again beside the others", SOUND | IDLE | {passes("error"): "0+5x60"}, 0),
        Case("nothing is done at all: another alert", SOUND | {passes("ok"): "7x60"}, 0),
        Case("somebody else succeeds", {passes("ok"): "7x60", passes("error"): "0+1x60", passes("ok", **ELSE): "0+1x60"}, 1),
        Case("somebody else fails", {passes("ok"): "7x60", passes("error"): "7x60", passes("error", **ELSE): "0+1x60"}, 0),
        Case("the standby that took over succeeds", {passes("ok"): "7x60", passes("error"): "0+1x60", passes("ok", pod="b"): "0x20 0+1x40"}, 0),
    ],
    metrics.ALERT_GATE_FAILED: [
        Case("refused", {REFUSED: "1x60"}, 1, labels={"namespace": "team", "deployment": "credit", "severity": "warning"}),
        Case("at once", {REFUSED: "1x60"}, 1, at="0m"),
        Case("not refused", {REFUSED: "0x60"}, 0),
        Case("two deployments", {REFUSED: "1x60", about(metrics.CANDIDATE_REFUSED, namespace="other"): "1x60"}, 2),
        Case("told by two replicas", {REFUSED: "1x60", about(metrics.CANDIDATE_REFUSED, pod="b"): "1x60"}, 1),
        Case("somebody else's word", {about(metrics.CANDIDATE_REFUSED, **ELSE): "1x60"}, 0),
    ],
    metrics.ALERT_REVISION_LOST: [
        Case("lost", {REVISION_LOST: "1x60"}, 1, labels={"namespace": "team", "deployment": "credit", "severity": "critical"}),
        Case("at once", {REVISION_LOST: "1x60"}, 1, at="0m"),
        Case("readable", {REVISION_LOST: "0x60"}, 0),
        Case("two deployments", {REVISION_LOST: "1x60", about(metrics.REVISION_LOST, namespace="other"): "1x60"}, 2),
        Case("told by two replicas", {REVISION_LOST: "1x60", about(metrics.REVISION_LOST, pod="b"): "1x60"}, 1),
        Case("somebody else's word", {about(metrics.REVISION_LOST, **ELSE): "1x60"}, 0),
    ],
    f"{metrics.ALERT_ROLLBACK_BLOCKED} candidate": [
        Case("waits for long", {WAITS_FOR_CANDIDATE: "1x60"}, 1, labels={"namespace": "team", "deployment": "credit", "reason": "RolloutUnderWay", "severity": "critical", "cause": "candidate"}),
        Case("for 29 minutes", {WAITS_FOR_CANDIDATE: "1x60"}, 0, at="29m"),
        Case("for 31 minutes", {WAITS_FOR_CANDIDATE: "1x60"}, 1, at="31m"),
        Case("it began in between", {WAITS_FOR_CANDIDATE: "1x20 0 1x39"}, 0),
        Case("it does not wait", {WAITS_FOR_CANDIDATE: "0x60"}, 0),
        Case("another reason is another alert", {about(metrics.ROLLBACK_BLOCKED, reason="Pinned"): "1x60"}, 0),
        Case("two deployments", {WAITS_FOR_CANDIDATE: "1x60", about(metrics.ROLLBACK_BLOCKED, reason="RolloutUnderWay", namespace="other"): "1x60"}, 2),
        Case("told by two replicas", {WAITS_FOR_CANDIDATE: "1x60", about(metrics.ROLLBACK_BLOCKED, reason="RolloutUnderWay", pod="b"): "1x60"}, 1),
        Case("somebody else's word", {about(metrics.ROLLBACK_BLOCKED, reason="RolloutUnderWay", **ELSE): "1x60"}, 0),
    ],
    metrics.ALERT_ROLLOUT_OVERDUE: [
        Case("overdue", {OVERDUE: "1x60"}, 1, labels={"namespace": "team", "deployment": "credit", "severity": "warning"}),
        Case("at once", {OVERDUE: "1x60"}, 1, at="0m"),
        Case("in time", {OVERDUE: "0x60"}, 0),
        Case("refused is another alert", {REFUSED: "1x60", OVERDUE: "0x60"}, 0),
        Case("two deployments", {OVERDUE: "1x60", about(metrics.ROLLOUT_OVERDUE, namespace="other"): "1x60"}, 2),
        Case("told by two replicas", {OVERDUE: "1x60", about(metrics.ROLLOUT_OVERDUE, pod="b"): "1x60"}, 1),
        Case("somebody else's word", {about(metrics.ROLLOUT_OVERDUE, **ELSE): "1x60"}, 0),
    ],
    metrics.ALERT_REGISTRY_BEHIND: [
        Case("facts wait for long", {WAITING: "3x60"}, 1, labels={"severity": "warning"}),
        Case("none waits", {WAITING: "0x60"}, 0),
        Case("a single one does", {WAITING: "1x60"}, 1),
        Case("for 29 minutes", {WAITING: "3x60"}, 0, at="29m"),
        Case("for 31 minutes", {WAITING: "3x60"}, 1, at="31m"),
        Case("all were delivered in between", {WAITING: "3x20 0 3x39"}, 0, at="45m"),
        Case("the leader's do, and a standby has none", {WAITING: "3x60", of(metrics.FACTS_WAITING, "b"): "0x60"}, 1),
        Case("somebody else's do", {of(metrics.FACTS_WAITING, **ELSE): "3x60"}, 0),
    ],
    metrics.ALERT_ISOLATION_BROKEN: [
        Case("all held", {GOT_THROUGH: "0x60", HELD: "17x60", VERIFIED: "1x60"}, 0),
        Case("one got through", {GOT_THROUGH: "1x60", HELD: "16x60", VERIFIED: "0x60"}, 1, labels={"namespace": "team", "severity": "critical"}),
        Case("at once", {GOT_THROUGH: "1x60", VERIFIED: "0x60"}, 1, at="0m"),
        Case("none got through, and nothing is shown: another alert", {GOT_THROUGH: "0x60", HELD: "0x60", VERIFIED: "-1x60"}, 0),
        Case("none got through, and the namespace is not restricted: another alert", {GOT_THROUGH: "0x60", HELD: "17x60", VERIFIED: "0x60"}, 0),
        Case("one got through, and the next run shows nothing", {GOT_THROUGH: "1x20 0x40", VERIFIED: "0x20 -1x40"}, 1),
        Case("one got through, and the next run held", {GOT_THROUGH: "1x20 0x40", VERIFIED: "0x20 1x40"}, 0),
        Case("one got through, and another leads", {GOT_THROUGH: "1x20 _x40", VERIFIED: "0x20 _x40", tries("open", pod="b"): "_x22 1x38", of(metrics.ISOLATION_VERIFIED, "b", namespace="team"): "_x22 0x38"}, 1),
        Case("another tenant's walls hold", {GOT_THROUGH: "1x60", VERIFIED: "0x60", of(metrics.ISOLATION_VERIFIED, namespace="other"): "1x60"}, 1),
        Case("of two replicas one still says that it holds", {GOT_THROUGH: "1x60", VERIFIED: "1x60", of(metrics.ISOLATION_VERIFIED, "b", namespace="team"): "0x60"}, 1),
        Case("two tenants", {GOT_THROUGH: "1x60", tries("open", "other"): "2x60"}, 2),
        Case("told by two replicas", {GOT_THROUGH: "1x60", tries("open", pod="b"): "1x60"}, 1),
        Case("somebody else's word", {tries("open", **ELSE): "1x60"}, 0),
        Case("somebody else says that it holds", {GOT_THROUGH: "1x60", of(metrics.ISOLATION_VERIFIED, namespace="team", **ELSE): "1x60"}, 1),
    ],
    metrics.ALERT_ISOLATION_NOT_VERIFIED: [
        Case("shown", {SHOWN: "1x60", SERVES: "1x60"}, 0),
        Case("a wall is open", {SHOWN: "0x60", SERVES: "1x60"}, 1, labels={"namespace": "team", "severity": "warning"}),
        Case("nobody knows", {SHOWN: "-1x60", SERVES: "1x60"}, 1),
        Case("for 29 minutes", {SHOWN: "-1x60", SERVES: "1x60"}, 0, at="29m"),
        Case("for 31 minutes", {SHOWN: "-1x60", SERVES: "1x60"}, 1, at="31m"),
        Case("shown in between", {SHOWN: "-1x20 1 -1x39", SERVES: "1x60"}, 0),
        Case("nothing serves, so nobody can knock", {SHOWN: "-1x60", SERVES: "0x60"}, 0),
        Case("nobody knows whether it serves", {SHOWN: "-1x60", SERVES: "-1x60"}, 0),
        Case("another of the tenant's serves", {SHOWN: "-1x60", SERVES: "0x60", holds("Ready", deployment="debit"): "1x60", holds("IsolationVerified", deployment="debit"): "1x60"}, 0),
        Case("two of a tenant", {SHOWN: "-1x60", SERVES: "1x60", holds("Ready", deployment="debit"): "1x60", holds("IsolationVerified", deployment="debit"): "0x60"}, 1),
        Case("two tenants", {SHOWN: "-1x60", SERVES: "1x60", holds("Ready", namespace="other"): "1x60", holds("IsolationVerified", namespace="other"): "0x60"}, 2),
        Case("another condition is not True", {SHOWN: "1x60", SERVES: "1x60", holds("AlertsWired"): "0x60"}, 0),
        Case("another condition is True", {SHOWN: "0x60", SERVES: "0x60", holds("AlertsWired"): "1x60"}, 0),
        Case("somebody else's word", {holds("IsolationVerified", **ELSE): "0x60", holds("Ready", **ELSE): "1x60"}, 0),
        Case("somebody else says that it is not", {holds("IsolationVerified", **ELSE): "0x60", SERVES: "1x60"}, 0),
        Case("somebody else serves", {SHOWN: "0x60", SERVES: "0x60", holds("Ready", **ELSE): "1x60"}, 0),
    ],
    metrics.ALERT_RUNTIME_OUTDATED: [
        Case("it stands", {VULNERABLE: "1x60"}, 1, labels={"namespace": "team", "deployment": "credit", "severity": "warning"}),
        Case("at once", {VULNERABLE: "1x60"}, 1, at="0m"),
        Case("it does not", {VULNERABLE: "0x60"}, 0),
        Case("two deployments", {VULNERABLE: "1x60", about(metrics.RUNTIME_VULNERABLE, namespace="other"): "1x60"}, 2),
        Case("told by two replicas", {VULNERABLE: "1x60", about(metrics.RUNTIME_VULNERABLE, pod="b"): "1x60"}, 1),
        Case("somebody else's word", {about(metrics.RUNTIME_VULNERABLE, **ELSE): "1x60"}, 0),
    ],
    metrics.ALERT_RUNTIME_WAVE_STOPPED: [
        Case("it stands", {WAVE_FAILED: "1x60"}, 1, labels={"namespace": "team", "deployment": "credit", "severity": "warning"}),
        Case("at once", {WAVE_FAILED: "1x60"}, 1, at="0m"),
        Case("it does not", {WAVE_FAILED: "0x60"}, 0),
        Case("two deployments", {WAVE_FAILED: "1x60", about(metrics.REFRESH_FAILED, namespace="other"): "1x60"}, 2),
        Case("told by two replicas", {WAVE_FAILED: "1x60", about(metrics.REFRESH_FAILED, pod="b"): "1x60"}, 1),
        Case("somebody else's word", {about(metrics.REFRESH_FAILED, **ELSE): "1x60"}, 0),
    ],
    metrics.ALERT_ROLLED_BACK: [
        Case("rolled back ten minutes ago", {ROLLED_BACK: "0x35 1x10"}, 1, labels={"deployment": "credit", "reason": "BelowThreshold", "severity": "info"}),
        Case("never", {ROLLED_BACK: "0x45"}, 0),
        Case("counted three, and the operator was started anew", {ROLLED_BACK: "3x20 0x25"}, 0),
        Case("Prometheus was away", {ROLLED_BACK: "3x20 _x8 3x20"}, 0),
        Case("long ago", {ROLLED_BACK: "1x300"}, 0, at="4h"),
        Case("in two deployments", {ROLLED_BACK: "0x35 1x10", about(metrics.ROLLBACKS_TOTAL, deployment="debit", reason="BelowThreshold"): "0x35 1x10"}, 2),
        Case("counted by somebody else", {about(metrics.ROLLBACKS_TOTAL, reason="BelowThreshold", **ELSE): "0x35 1x10"}, 0),
    ],
    metrics.ALERT_ROLLBACK_BLOCKED: [
        Case("blocked", {BLOCKED: "1x60"}, 1, labels={"deployment": "credit", "reason": "NoCapacity", "severity": "critical"}),
        Case("at once", {BLOCKED: "1x60"}, 1, at="0m"),
        Case("not blocked", {BLOCKED: "0x60"}, 0),
        Case("nobody wants it", {about(metrics.ROLLBACK_BLOCKED, reason="AlertOnly"): "1x60"}, 0),
        Case("another revision is on its way", {about(metrics.ROLLBACK_BLOCKED, reason="RolloutUnderWay"): "1x60"}, 0),
        Case("somebody acknowledged it", {about(metrics.ROLLBACK_BLOCKED, reason="AckUnderWay"): "1x60"}, 0),
        Case("for two reasons", {BLOCKED: "1x60", about(metrics.ROLLBACK_BLOCKED, reason="Pinned"): "1x60"}, 2),
        Case("somebody else's word", {about(metrics.ROLLBACK_BLOCKED, reason="NoCapacity", **ELSE): "1x60"}, 0),
    ],
}  # fmt: skip


def test_every_rule_is_tried() -> None:
    assert CASES
    assert set(CASES) == set(RULES)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    """What promtool says of a rule: asked once, by the first test of that rule."""
    return cache(lambda name: Judged(tmp_path_factory.mktemp("rule"), RULES[name], CASES[name]))


@pytest.mark.parametrize(
    ("name", "said"), [pytest.param(n, c.said, id=f"{n}: {c.said}") for n, cs in CASES.items() for c in cs]
)
def test_the_rule_fires_where_it_should_and_nowhere_else(judged: Callable[[str], Judged], name: str, said: str) -> None:
    assert said not in judged(name).wrong


MUTANTS = [(name, change) for name in CASES for change, _ in mutants(RULES[name])]


@pytest.mark.unit_long
@pytest.mark.parametrize(("name", "change"), MUTANTS, ids=[f"{name}: {change}" for name, change in MUTANTS])
def test_a_changed_rule_is_found_out(judged: Callable[[str], Judged], name: str, change: str) -> None:
    assert change in judged(name).mutants
    assert change not in judged(name).survivors


def test_every_rule_names_its_severity_and_its_page() -> None:
    for rule in RULES.values():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
        assert rule["annotations"]["runbook_url"].endswith(f"/monitoring/runbooks/{rule['alert']}.md")


def test_the_rules_name_the_outcomes_of_the_contract() -> None:
    expr = RULES[metrics.ALERT_GATEWAY_ERRORS]["expr"]
    errors = "|".join(GATEWAY_ERRORS)
    assert expr.count(f'outcome=~"{errors}"') == 2
    assert f'outcome=~"{GatewayOutcome.ANSWERED}|{errors}"' in expr
    assert f'outcome="{GatewayOutcome.BUDGET_EXHAUSTED}"' in RULES[metrics.ALERT_GATEWAY_BUDGET_EXHAUSTED]["expr"]


def test_the_objectives_are_the_charts_defaults() -> None:
    values = yaml.safe_load((ROOT / "charts" / "r1plus-operator" / "values.yaml").read_text())
    objectives = values["monitoring"]["objectives"]
    assert [str(one) for one in objectives.values()] == [VALUES["@ERROR_RATIO@"], VALUES["@FIRST_TOKEN_SECONDS@"]]
