"""What an earlier version of the operator or the registry leaves out of a fact is read as its default."""

import json
from typing import Any

from r1plus_contract.history import (
    AlarmFact,
    DeploymentFact,
    EngineFact,
    Evaluation,
    Facts,
    History,
    RecordedEngine,
    RevisionFact,
    RolloutEvent,
    RolloutFact,
    SuiteFact,
)
from r1plus_contract.jsonable import loads, to_jsonable
from r1plus_contract.verdict import GateReport, Verdict
from support.tables import for_each

DEPLOYMENT = DeploymentFact("u", "team", "credit")
ENGINE = EngineFact("e", "d", "full", "full", "1", "FP16", "vllm", "", "", "s")
GATE = GateReport(Verdict.PASS, "Passed", "m", "i", "s", "h", "1", 0.98, 4, 0, 0)
NOTHING: dict[str, Any] = {kind: [] for kind in ("revisions", "evaluations", "rollouts", "alarms")}


@for_each("fact, defaults", {
    "a deployment whose namespace is not known yet": (DEPLOYMENT, {"namespaceUid": ""}),
    "an engine whose figures were measured": (ENGINE, {"inheritedFrom": "", "claimedBy": "", "spec": {}}),
    "a suite without signature and items": (SuiteFact("", "s", "1", "h", "1", "e"), {"signer": "", "items": []}),
    "a revision without its identity": (RevisionFact("u", "credit-1", 1, "e", "d", 8, 2048, "i"), {"identity": {}, "monitorImage": ""}),
    "a step forward": (RolloutFact("u", "credit-1", RolloutEvent.PROMOTED, 1.0), {"to": "", "cause": "", "text": ""}),
    "an alarm without figures": (AlarmFact("u", "credit-1", "deployment", "x", "t"), {"before": "", "now": "", "lost": [], "text": ""}),
    "a delivery of nothing": (Facts(), {"deployments": [], "engines": [], "suites": [], "live": None, **NOTHING}),
    "a history that goes on": (History(DEPLOYMENT), {"ended": False, **NOTHING}),
    "an evaluation without its items": (Evaluation("team", "credit", "credit-1", "e", GATE), {"items": []}),
    "an engine that nobody has gated": (RecordedEngine(ENGINE, "t"), {"evaluations": 0, "passed": 0}),
})  # fmt: skip
def test_what_a_document_leaves_out_has_its_default(fact: Any, defaults: dict[str, Any]) -> None:
    document = {key: value for key, value in to_jsonable(fact).items() if key not in defaults}
    read = to_jsonable(loads(type(fact), json.dumps(document)))
    assert read == document | defaults
