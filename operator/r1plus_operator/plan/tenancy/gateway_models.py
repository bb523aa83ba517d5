"""What the gateway must know of each deployment: where it is, what it takes, which revisions its pods may serve.

Read from what the cluster serves by (Service, ControllerRevisions), so that the settings change with a promotion.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from r1plus_contract.gateway import Capability, ModelSettings, RevisionFacts, name_pods_service
from r1plus_contract.inference import DEFAULT_MAX_NEW_TOKENS
from r1plus_contract.timestamps import parse_timestamp
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.restored import read_selected

MAX_REVISIONS: Final = 3
"""The one that takes traffic, and those before it: DNS answers with their pods for up to half a minute. A candidate
comes in addition."""
_INPUT = re.compile(r'name: *"(\w+)"')


def build_model(cr: Json, service: Json, revisions: Iterable[Revision]) -> ModelSettings | None:
    """Return a deployment as a model of the gateway; None while nothing of it takes traffic.

    `service` is its headless Service. `namespaces` are those that the deployment names, allowed or not.
    """
    revisions = tuple(revisions)
    promoted = sorted(
        (one for one in revisions if one.promoted_at is not None), key=lambda one: one.promoted_at or 0.0, reverse=True
    )
    selected = read_selected(service)
    current = next((one for one in promoted if one.name == selected), None)
    if current is None:
        return None
    meta = cr["metadata"]
    served = [current, *(one for one in promoted if one is not current)][:MAX_REVISIONS]
    # A candidate may take traffic before its gateway reads its settings again, a minute after they change.
    candidates = [one for one in revisions if one.candidate_since is not None and one not in served]
    return ModelSettings(
        name=meta["name"],
        host=f"{name_pods_service(meta['name'])}.{meta['namespace']}.svc",
        context_tokens=current.context,
        batch=current.batch,
        max_new_tokens=min(DEFAULT_MAX_NEW_TOKENS, current.context),
        capabilities=_list_capabilities(current),
        namespaces=tuple(sorted(set(((cr.get("spec") or {}).get("access") or {}).get("namespaces") or ()))),
        revisions=tuple(
            RevisionFacts(one.name, one.identity_digest, one.identity.engine_digest) for one in (*served, *candidates)
        ),
        created_at=int(parse_timestamp(meta.get("creationTimestamp") or "")),
    )


def restrict_callers(model: ModelSettings, callers: Collection[str]) -> ModelSettings:
    """Return the model with those namespaces only that the platform team allows as well."""
    return replace(model, namespaces=tuple(name for name in model.namespaces if name in callers))


def _list_capabilities(revision: Revision) -> tuple[Capability, ...]:
    """Return those whose input is in the revision's model configuration."""
    inputs = set(_INPUT.findall(revision.config_pbtxt))
    return tuple(capability for capability in Capability if capability.value in inputs)
