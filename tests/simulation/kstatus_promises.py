"""Promises to those who read an R1PlusDeployment by kstatus, each with the sentence that it holds as its docstring."""

from typing import Any, Final

from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from simulation.invariants import SPEC_SECONDS, Judge
from simulation.readings import find_condition
from support.kstatus import Kstatus, compute_kstatus
from support.simulation.server import Change

HELD: Final = ("Paused", "Pinned")
"""Reasons of Progressing by which a deployment rests although its spec is not served."""


def current_means_promoted(judge: Judge, change: Change, sender: str) -> str:
    """For kstatus a deployment is not `Current` until the revision that its spec asks for has passed and takes traffic."""
    cr = _read_enforced(change)
    if cr is None or judge.now - judge.set_back_at < SPEC_SECONDS:
        return ""
    key = (cr["metadata"]["namespace"], cr["metadata"]["name"])
    if compute_kstatus(cr) is not Kstatus.CURRENT or find_condition(cr, "Progressing")[1] in HELD:
        return ""
    judge.count("current_means_promoted")
    asked = int(cr["spec"]["context"]["maxTokens"])
    name = judge.world.find_serving(*key)
    revision = judge.world.oracle.revisions.get((key[0], name))
    if revision is None or revision.context != asked:
        found = f"{name} with {revision.context}" if revision else "nothing"
        return f"{key[0]}/{key[1]}: kstatus is Current; the spec asks for {asked} tokens, and {found} serves"
    judge.world.oracle.look(judge.now)
    if any(gate.report.verdict is Verdict.PASS for gate in judge.world.oracle.gates_of(key[0], name)):
        return ""
    return f"{key[0]}/{key[1]}: kstatus is Current, and {name}, which serves, has never passed"


def a_refusal_is_failed(judge: Judge, change: Change, sender: str) -> str:
    """For kstatus a deployment is `Failed` by the same write that reports that its candidate is refused."""
    cr = _read_enforced(change)
    if cr is None or find_condition(cr, "Progressing")[1] != "CandidateRefused":
        return ""
    if cr["status"]["observedGeneration"] != cr["metadata"]["generation"] or "deletionTimestamp" in cr["metadata"]:
        return ""
    judge.count("a_refusal_is_failed")
    found = compute_kstatus(cr)
    if found is Kstatus.FAILED:
        return ""
    name = f"{cr['metadata']['namespace']}/{cr['metadata']['name']}"
    return f"{name}: candidate {cr['status'].get('candidate')} is refused, and kstatus is {found}"


def _read_enforced(change: Change) -> dict[str, Any] | None:
    """Return the R1PlusDeployment with `Enforce` that a write has left; None: it has left none."""
    cr = change.after
    if change.resource.kind != names.KIND_DEPLOYMENT or cr is None:
        return None
    return cr if cr["spec"].get("accuracy", {}).get("gate", "Enforce") == "Enforce" else None
