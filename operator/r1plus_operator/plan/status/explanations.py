"""Texts that several conditions share."""

from r1plus_contract.remedies import Remedy, word
from r1plus_operator.api.conditions import Finding
from r1plus_operator.api.quotas import find_quota_remedy
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.status.context import StatusContext

REFUSED_REMEDY = (
    "an admission policy or the operator's role forbids it (docs/admission.md); the operator retries every minute"
)
FAILED_REMEDY = "the write failed and is retried until it succeeds; see the API server's log"


def suggest_write_remedy(error: str) -> str:
    """Return what to do about a write that the API server refuses, by its words."""
    return find_quota_remedy(error) or REFUSED_REMEDY


def explain_pause(s: StatusContext) -> str:
    """Return what a paused deployment does without, and what resumes it."""
    remedy = word(Remedy.RESUME_DEPLOYMENT, name=s.observation.name, namespace=s.observation.namespace)
    return f"spec.rollout.paused: the operator starts and repairs nothing; {remedy} resumes it"


def append_problem(finding: Finding, problem: Problem) -> Finding:
    """Return the finding with the reason for which the spec cannot be served."""
    text = f"{finding.message}. The spec cannot be served: {problem.reason}: {problem.message}"
    return Finding(finding.status, finding.reason, text)
