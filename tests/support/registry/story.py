"""Facts for the registry's tests: the demo's story, a revision that serves and one that the gate refused."""

from dataclasses import replace

from r1plus_contract.history import (
    AlarmFact,
    DeploymentFact,
    EngineFact,
    EvaluationFact,
    Facts,
    RevisionFact,
    RolloutEvent,
    RolloutFact,
    SuiteFact,
    SuiteItem,
)
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict

UID = "0b5e6a2c-0000-4000-8000-000000000001"
NAMESPACE_UID = "0b5e6a2c-0000-4000-8000-00000000000a"
DEPLOYMENT = DeploymentFact(UID, "team-credit", "credit", NAMESPACE_UID)
ENGINE = EngineFact(
    name="smollm2-full-q4-1",
    spec_digest="e" * 64,
    family="smollm2",
    tier="full",
    version="1.0.0",
    precision="Q4_1",
    backend="openvino",
    image="registry.example.com/q4:1",
    sha256="d" * 64,
    suite="smollm2-full-v1",
    inherited_from="smollm2-full-f16",
    claimed_by="the model card",
    spec={"tier": "full", "batch": {"best": 8, "max": 32}},
)
SUITE = SuiteFact(
    "", "smollm2-full-v1", "1", "5" * 64, "1", "smollm2-full-f16", "", (SuiteItem("c1", "capitals"), SuiteItem("c2", "capitals"), SuiteItem("s1", "sums"))
)  # fmt: skip
REVISION = RevisionFact(
    deployment=UID,
    name="credit-aaaaaaaaaa",
    number=2,
    engine=ENGINE.name,
    engine_digest=ENGINE.sha256,
    batch=8,
    context=1024,
    identity_digest="1" * 64,
    identity={"engine": ENGINE.name, "batch": 8},
    monitor_image="monitor:1",
)
REPORT = GateReport(
    verdict=Verdict.FAIL,
    reason="TooManyLost",
    message="2 of 3 items lost, 0 allowed",
    identity=REVISION.identity_digest,
    suite=SUITE.name,
    suite_hash=SUITE.sha256,
    scorer_version="1",
    threshold=0.98,
    items=3,
    lost=2,
    allowed=0,
    strata=(StratumFigures("capitals", 2, 1, 0), StratumFigures("sums", 1, 1, 0)),
    failures=9,
    probes=30,
    sweeps=3,
    lost_at_batch_1=1,
    lost_items=("c2", "s1"),
    seconds=41.25,
    decided_at="2026-11-25T12:00:00Z",
    batch=8,
)
EVALUATION = EvaluationFact(UID, REVISION.name, REPORT)
ROLLOUT = RolloutFact(UID, REVISION.name, RolloutEvent.CANDIDATE, 1_795_600_000.125)
ALARM = AlarmFact(
    UID, REVISION.name, "deployment", "BelowThreshold", "2026-11-25T12:05:00Z", "3/3", "1/3", ("c2",), "x"
)
FACTS = Facts((DEPLOYMENT,), (ENGINE,), (SUITE,), (REVISION,), (EVALUATION,), (ROLLOUT,), (ALARM,))


def of(uid: str, facts: Facts = FACTS) -> Facts:
    """The same story of another deployment."""
    return replace(
        facts,
        deployments=(replace(DEPLOYMENT, uid=uid),),
        revisions=tuple(replace(one, deployment=uid) for one in facts.revisions),
        evaluations=tuple(replace(one, deployment=uid) for one in facts.evaluations),
        rollouts=tuple(replace(one, deployment=uid) for one in facts.rollouts),
        alarms=tuple(replace(one, deployment=uid) for one in facts.alarms),
    )
