"""A serving revision whose ControllerRevision is gone or damaged: somebody deleted it, or a backup left it out.

It is made again from the revision's Deployment and ConfigMap. The Service shows that it was promoted, since only a
promotion changes the Service. Its verdicts are lost: its pods' gate counts where it is proven, or is repeated.
Where it cannot be made again nothing is written: an older promotion, perhaps of a refused revision, would count.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, loads
from r1plus_contract.timestamps import format_timestamp
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.engine.selection import Problem
from r1plus_operator.plan.events import Event
from r1plus_operator.plan.observation import RESTORED, Json
from r1plus_operator.plan.revision.record import (
    CONFIG_FILE,
    IDENTITY_FILE,
    NOTHING_PROMOTED,
    Revision,
    date_promotion,
    find_current_revision,
)
from r1plus_operator.plan.revision.storage import read_revision

Children = Mapping[tuple[str, str], Json]


def find_selected(children: Children, deployment: str) -> str:
    """Return the revision that the deployment's Service selects; empty: none, or there is no Service."""
    return read_selected(children.get(("Service", deployment)) or {})


def read_selected(service: Json) -> str:
    """Return the revision that a Service selects; empty: none."""
    selector = (service.get("spec") or {}).get("selector") or {}
    name = str(selector.get(names.LABEL_REVISION, NOTHING_PROMOTED))
    return "" if name == NOTHING_PROMOTED else name


def restore_revision(deployment: Json, config: Json) -> Json | None:
    """Return the ControllerRevision of a revision's Deployment and ConfigMap; None where they lack something."""
    meta, files = deployment["metadata"], config.get("data") or {}
    rest = (config["metadata"].get("annotations") or {}).get(names.ANNOTATION_REVISION_DATA, "")
    with contextlib.suppress(ContractError, KeyError, TypeError):
        data = loads(dict[str, Any], rest) | {
            "template": deployment["spec"]["template"],
            "configPbtxt": files[CONFIG_FILE],
            "identity": loads(dict[str, Any], files[IDENTITY_FILE]),
        }
        metadata = {"name": meta["name"], "namespace": meta["namespace"]}
        live = {"kind": "ControllerRevision", "metadata": metadata, "data": data, RESTORED: True}
        read_revision(live)
        return live
    return None


def date_restored(revisions: Mapping[str, Revision], now: float) -> dict[str, Revision]:
    """Return the revisions with what was made again promoted after all others, as the Service shows."""
    at = date_promotion(revisions.values(), now)
    return {name: replace(r, promoted_at=at) if r.is_restored else r for name, r in revisions.items()}


def set_aside_promotions(revisions: Mapping[str, Revision], children: Children, selected: str) -> dict[str, Revision]:
    """Return the revisions without a current one where what served is gone as a whole, its Deployment too.

    An older promotion does not say what serves: whatever takes traffic now needs a Pass. A revision that runs and is no
    candidate serves already: then somebody has changed the Service, which the pass repairs.
    """
    newest = find_current_revision(revisions.values())
    is_serving = newest is not None and ("Deployment", newest.name) in children and newest.candidate_since is None
    if not selected or selected in revisions or is_serving:
        return dict(revisions)
    return {name: replace(r, is_set_aside=r.promoted_at is not None) for name, r in revisions.items()}


def find_loss(revisions: Mapping[str, Revision], children: Children, selected: str) -> Problem | None:
    """Return that the revision that serves cannot be read, so that nothing may be written; None: it can."""
    if not selected or selected in revisions or ("Deployment", selected) not in children:
        return None
    state = f"The Service selects revision {selected}, whose ControllerRevision is"
    if ("ControllerRevision", selected) in children:
        state += " damaged"
        remedy = f"Let the platform team delete ControllerRevision {selected}: it is made again"
    else:
        state += f" gone, and ConfigMap {selected} lacks what it would be made again from"
        remedy = "Restore either from a backup"
    effect = "The operator writes nothing: traffic stays, and an accuracy drop is not answered"
    last = f"Or let the platform team delete Deployment {selected}: nothing serves then until a revision passes"
    return Problem(ConditionType.READY, Reason.REVISION_LOST, f"{state}. {effect}. {remedy}. {last}")


def build_restored_events(revisions: Mapping[str, Revision], now: float) -> tuple[Event, ...]:
    """Return an Event for a ControllerRevision that this pass makes again."""
    return tuple(
        Event(
            "RevisionRestored",
            f"ControllerRevision {name} of what serves was gone: it was made again from its Deployment and ConfigMap."
            " Traffic stays. Its verdicts and its former time in traffic are lost; find out in the audit log who"
            " deleted it",
            format_timestamp(now),
            is_warning=True,
        )
        for name, revision in revisions.items()
        if revision.is_restored
    )
