"""`r1plus validate`: every problem of an R1PlusDeployment, R1PlusEngine or R1PlusTenant at once, without a cluster.

The same pydantic models that the CRD is generated from judge here, and the same name rule as the CRD's CEL; then the
catalog is asked what only it can tell: is there such an engine, does batch and context fit it.
"""

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from r1plus_cli.documents import Document
from r1plus_contract.names import API_VERSION, TENANT
from r1plus_model_repo.catalog.loader import read_engine
from r1plus_model_repo.catalog.types import MAX_ENGINE_NAME, Engine, spec_problems
from r1plus_model_repo.catalog.wire import DNS_SUBDOMAIN
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import DNS_1035, MAX_NAME, R1PlusDeploymentSpec
from r1plus_operator.plan.engine.placement import check_placement
from r1plus_operator.plan.engine.selection import build_engine_candidate, build_engine_request
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import explain_forbidden_callers
from r1plus_policies.engine.memory_fit import Misfit, fit_memory
from r1plus_policies.engine.selection import choose_engine

_ENGINE_NAME = re.compile(rf"(?=.{{1,{MAX_ENGINE_NAME}}}$){DNS_SUBDOMAIN.removeprefix('^')}")


def problems_of(
    document: Document, engines: Sequence[Engine], config: OperatorConfig, tenant: R1PlusTenantSpec | None = None
) -> list[str]:
    """All that is wrong with `document`; none means that `kubectl apply` will take it and the catalog can serve it.

    `tenant`: of its namespace, where it is at hand, to which callers and placement are held.
    """
    found = [*_version_problems(document), *_name_problems(document)]
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec if document.spec is not None else {})
    except ValidationError as error:
        return [*found, *spec_problems(error, R1PlusDeploymentSpec)]
    return [*found, *_catalog_problems(spec, engines, config), *_tenant_conflicts(spec, tenant)]


def engine_of(document: Document) -> Engine | list[str]:
    """The R1PlusEngine, or all that is wrong with it."""
    if problems := _version_problems(document):
        return problems
    found = read_engine(document.source, document.body)
    prefixes = (f"{document.source}: {document.name}: ", f"{document.source}: ")
    if isinstance(found, Engine):
        return found if _ENGINE_NAME.fullmatch(found.name) else [_engine_name_problem(found.name)]
    return [next((line.removeprefix(p) for p in prefixes if line.startswith(p)), line) for line in found]


def engines_of(
    documents: list[Document], catalog: tuple[Engine, ...]
) -> tuple[tuple[Engine, ...], list[tuple[str, list[str]]]]:
    """The catalog with the engines of a file, and of each of these what is wrong with it."""
    judged = []
    for document in documents:
        found = engine_of(document)
        judged.append((f"{document.source}: {document.name}", [] if isinstance(found, Engine) else found))
        if isinstance(found, Engine):
            catalog = (*(engine for engine in catalog if engine.name != found.name), found)
    return catalog, judged


def tenant_problems(document: Document) -> list[str]:
    """All that is wrong with an R1PlusTenant."""
    found = _version_problems(document)
    if document.name != TENANT:
        found.append(f"metadata.name: {document.name!r:.80} must be {TENANT}: a namespace has one")
    try:
        R1PlusTenantSpec.model_validate(document.spec if document.spec is not None else {})
    except ValidationError as error:
        return [*found, *spec_problems(error, R1PlusTenantSpec)]
    return found


def tenant_for(document: Document, tenants: Iterable[Document]) -> R1PlusTenantSpec | None:
    """The spec of the R1PlusTenant of the deployment's namespace; None where it is not at hand, or not valid."""
    own = (one for one in tenants if one.namespace == document.namespace and not tenant_problems(one))
    found = next(own, None)
    return R1PlusTenantSpec.model_validate(found.spec or {}) if found else None


def _tenant_conflicts(spec: R1PlusDeploymentSpec, tenant: R1PlusTenantSpec | None) -> list[str]:
    if tenant is None:
        return []
    placement = check_placement(spec.placement, tenant.placement)
    conflicts = [explain_forbidden_callers(spec, tenant.callers.namespaces), placement.message if placement else ""]
    return [conflict for conflict in conflicts if conflict]


def _version_problems(document: Document) -> list[str]:
    version = document.body.get("apiVersion")
    return [] if version == API_VERSION else [f"apiVersion: {version!r:.80} is not served; write {API_VERSION}"]


def _engine_name_problem(name: str) -> str:
    return (
        f"metadata.name: {name!r:.80} must be at most {MAX_ENGINE_NAME} lower-case letters, digits, '-' and '.':"
        " pods bear it as a label"
    )


def _name_problems(document: Document) -> list[str]:
    name = document.name
    if not name:
        return ["metadata.name: missing"]
    found = []
    if len(name) > MAX_NAME:
        found.append(f"metadata.name: {name!r} has {len(name)} characters, more than {MAX_NAME}")
    if not re.fullmatch(DNS_1035, name):
        found.append(
            f"metadata.name: {name!r} must be lower-case letters, digits and '-', begin with a letter"
            " and end with a letter or digit: a Service bears it"
        )
    return found


def _catalog_problems(spec: R1PlusDeploymentSpec, engines: Sequence[Engine], config: OperatorConfig) -> list[str]:
    choice = choose_engine([build_engine_candidate(engine) for engine in engines], build_engine_request(spec, config))
    engine = next((e for e in engines if e.name == choice.engine), None)
    if engine is None:
        return [choice.why]
    shape = engine.spec.shape
    # Each alone, so that a batch and a context that are both too large are both told of.
    asked = ((spec.batching.max_batch_size, None), (None, spec.context.max_tokens))
    fits = [fit_memory(shape, batch=batch, context=context, memory_bytes=None) for batch, context in asked]
    return [found.message for found in fits if isinstance(found, Misfit)]
