"""Render a revision from the spec and its target, and hash what makes it another one.

The hash covers what the *spec and the engine* say of the pod and its answers. It does not cover what an operator
upgrade may render differently: an existing revision keeps its own template, so that an upgrade restarts no serving pod.
Only the hash of a revision that a refresh begins covers the images as well (`plan.revision.refresh`).
"""

import hashlib

from r1plus_contract.jsonable import dumps, to_jsonable
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.settings import MONITOR_PROTOCOL
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.selection import Target
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.podspec.pod import build_pod_template
from r1plus_operator.plan.podspec.triton_config import render_triton_config
from r1plus_operator.plan.revision.record import Revision, Runtime
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_policies.engine.hardware import WHOLE_GPU


def hash_revision(
    spec: R1PlusDeploymentSpec, target: Target, runtime: Runtime | None = None, number: int | None = None
) -> str:
    """Return 10 hex digits over what changes the pod or its answers; never accuracy, access, replicas.

    `runtime`: set where a stored revision differs in its runtime alone; `number`: set where two do.
    """
    return _hash(spec, target, target.volume.name if target.volume else "", runtime, number)


def hash_request(spec: R1PlusDeploymentSpec, target: Target) -> str:
    """Return 10 hex digits over what the spec asks for, whatever image builds it."""
    return _hash(spec, target, target.volume.revision_key if target.volume else "")


def is_made_for(revision: Revision, deployment: str, spec: R1PlusDeploymentSpec, target: Target) -> bool:
    """Whether the spec asks for this revision, whatever images the operator has now."""
    if revision.name == f"{deployment}-{hash_revision(spec, target)}":
        return True
    return revision.request_hash == hash_request(spec, target)


def select_runtime(target: Target, config: OperatorConfig) -> Runtime:
    """Return the operator's images for the target, and whether pods name a user."""
    return Runtime(
        config.select_image(target.engine.spec.runtime),
        config.monitor_image,
        bool(config.pod_user.security_fields),
    )


def _hash(
    spec: R1PlusDeploymentSpec, target: Target, volume: str, runtime: Runtime | None = None, number: int | None = None
) -> str:
    document = {
        "engine": target.engine.name,
        "digest": target.engine.spec.files.sha256,
        "backend": target.engine.spec.backend.value,
        "batch": target.fit.batch,
        "context": target.fit.context,
        "placement": spec.placement.model_dump(mode="json", by_alias=True),
    }
    if (attention := target.engine.spec.attention) is not None:
        document["attention"] = attention.model_dump(mode="json", by_alias=True, exclude_none=True)
    if volume:
        document["volume"] = volume
    if runtime:
        document["runtime"] = {**runtime.images, "speaks": MONITOR_PROTOCOL}
        if not runtime.names_user:
            document["user"] = "assigned"
    if number is not None:
        document["number"] = number
    if target.gpus:
        slices = "" if target.gpus.resource == WHOLE_GPU else f"{target.gpus.resource}/"
        document["gpu"] = f"{slices}{target.gpus.product}"
    return hashlib.sha256(dumps(document).encode()).hexdigest()[:10]


def build_revision(
    cr: Json, spec: R1PlusDeploymentSpec, target: Target, config: OperatorConfig, number: int, name: str
) -> Revision:
    """Render a new revision of the R1PlusDeployment `cr` for `target`."""
    engine, fit = target.engine, target.fit
    is_refreshed = name != f"{cr['metadata']['name']}-{hash_revision(spec, target)}"
    volume = target.volume
    recipe = volume.order.build if volume else None
    config_pbtxt = render_triton_config(
        engine.spec, fit.batch, fit.context, fit.kv_cache_bytes, recipe.key if recipe else ""
    )
    identity = ServingIdentity(
        engine=engine.name,
        engine_digest=engine.spec.files.sha256,
        config_digest=hashlib.sha256(config_pbtxt.encode()).hexdigest(),
        triton_image=config.select_image(engine.spec.runtime),
        batch=fit.batch,
        context=fit.context,
        gpu_product=target.gpus.product if target.gpus else "",
        monitor_image=config.monitor_image if is_refreshed else "",
    )
    claim, identity_digest = volume.name if volume else "", identity.digest()
    template = build_pod_template(
        cr,
        name,
        spec,
        engine,
        fit,
        identity_digest,
        config,
        claim,
        target.gpus,
        counts_storage=target.counts_storage,
    )
    data = {
        "configPbtxt": config_pbtxt,
        "identity": identity.document(),
        "monitorSpeaks": MONITOR_PROTOCOL,
        "number": number,
        "template": template,
    }
    if volume:
        data["volume"] = to_jsonable(volume)
    if recipe or is_refreshed:
        data["asked"] = hash_request(spec, target)
    return Revision(name, number, data, identity, identity_digest)
