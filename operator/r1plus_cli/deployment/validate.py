"""`r1plus validate`: all problems of an R1PlusDeployment, R1PlusEngine or R1PlusTenant at once, without a cluster.

It uses the pydantic models from which the CRD is generated, and the name rule of the CRD's CEL. Then it checks the
catalog: whether it has such an engine, and whether batch and context fit.
"""

import re
from collections.abc import Iterable, Sequence

import typer
from pydantic import ValidationError
from rich.text import Text

from r1plus_cli import local
from r1plus_cli.deployment.preview import find_unchecked
from r1plus_cli.deployment.spec_files import CatalogOption, FamilyOption, FileOption, show_problems
from r1plus_cli.documents import CONFIG_MAP, Document, read_documents
from r1plus_cli.options import open_console
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT, TENANT
from r1plus_model_repo.catalog.loader import AnyEngine, read_engine
from r1plus_model_repo.catalog.types import MAX_ENGINE_NAME, Engine, spec_problems
from r1plus_model_repo.catalog.wire import DNS_SUBDOMAIN
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import DNS_1035, MAX_NAME, R1PlusDeploymentSpec
from r1plus_operator.plan.engine.placement import check_placement
from r1plus_operator.plan.engine.selection import build_engine_candidate, build_engine_request
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import explain_forbidden_callers
from r1plus_policies.engine.memory_fit import Misfit, fit_memory
from r1plus_policies.engine.selection import choose_engine

_ENGINE_NAME = re.compile(rf"(?=.{{1,{MAX_ENGINE_NAME}}}$){DNS_SUBDOMAIN.removeprefix('^')}")


def validate_command(
    file: FileOption, catalog: CatalogOption = local.SHIPPED_CATALOG, family: FamilyOption = local.DEFAULT_FAMILY
) -> None:
    """Check R1PlusDeployments and R1PlusEngines and list every problem: field, value and limit. Needs no cluster.

    It also uses engines, tenants and golden suites of the file. What only a cluster knows is listed. Exit status 1 if
    there is a problem, so that a pipeline can stop before `kubectl apply`.
    """
    config = local.build_config(family)
    documents = read_documents(file, KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT)
    engines, results = merge_engines(documents[KIND_ENGINE], local.load_engines(catalog, family))
    shipped_suites, unchecked = local.load_suites(local.SHIPPED_SUITES), {}
    for document in documents[KIND_DEPLOYMENT]:
        tenant = find_tenant(document, documents[KIND_TENANT])
        results.append((document.title, find_problems(document, engines, config, tenant)))
        suite_sources = {**shipped_suites, **local.select_suites(document, documents[CONFIG_MAP])}
        unchecked[document.title] = _list_unchecked(document, suite_sources, tenant)
    results += [(document.title, find_tenant_problems(document)) for document in documents[KIND_TENANT]]
    for title, problems in results:
        if problems:
            show_problems(title, problems)
            continue
        open_console().print(Text(f"{title}: valid", style="green"))
        for line in unchecked.get(title, ()):
            open_console().print(Text(f"  not checked offline: {line}"))
    raise typer.Exit(1 if any(problems for _, problems in results) else 0)


def _list_unchecked(document: Document, suites: dict[str, SuiteSource], tenant: R1PlusTenantSpec | None) -> list[str]:
    """Return what only a cluster can confirm; empty for an invalid deployment."""
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec)
    except ValidationError:
        return []
    return list(find_unchecked(document.namespace, spec, suites, tenant))


def find_problems(
    document: Document, engines: Sequence[Engine], config: OperatorConfig, tenant: R1PlusTenantSpec | None = None
) -> list[str]:
    """Return all problems of `document`. Without any, `kubectl apply` accepts it and the catalog can serve it.

    `tenant` is the tenant of its namespace, if available; callers and placement are checked against it.
    """
    problems = [*_find_version_problems(document), *_find_name_problems(document)]
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec if document.spec is not None else {})
    except ValidationError as error:
        return [*problems, *spec_problems(error, R1PlusDeploymentSpec)]
    return [*problems, *_find_catalog_problems(spec, engines, config), *_find_tenant_conflicts(spec, tenant)]


def parse_engine(document: Document) -> AnyEngine | list[str]:
    """Return the R1PlusEngine, or all its problems."""
    if problems := _find_version_problems(document):
        return problems
    result = read_engine(document.source, document.body)
    prefixes = (f"{document.source}: {document.name}: ", f"{document.source}: ")
    if isinstance(result, AnyEngine):
        return result if _ENGINE_NAME.fullmatch(result.name) else [_describe_engine_name_problem(result.name)]
    return [next((line.removeprefix(p) for p in prefixes if line.startswith(p)), line) for line in result]


def merge_engines(
    documents: list[Document], catalog: tuple[Engine, ...]
) -> tuple[tuple[Engine, ...], list[tuple[str, list[str]]]]:
    """Return the catalog with the engines of a file, and the problems of each of these."""
    results = []
    for document in documents:
        result = parse_engine(document)
        results.append((f"{document.source}: {document.name}", [] if isinstance(result, AnyEngine) else result))
        if isinstance(result, Engine):
            catalog = (*(engine for engine in catalog if engine.name != result.name), result)
    return catalog, results


def find_tenant_problems(document: Document) -> list[str]:
    """Return all problems of an R1PlusTenant."""
    problems = _find_version_problems(document)
    if document.name != TENANT:
        problems.append(f"metadata.name: {document.name!r:.80} must be {TENANT}: a namespace has one")
    try:
        R1PlusTenantSpec.model_validate(document.spec if document.spec is not None else {})
    except ValidationError as error:
        return [*problems, *spec_problems(error, R1PlusTenantSpec)]
    return problems


def find_tenant(document: Document, tenants: Iterable[Document]) -> R1PlusTenantSpec | None:
    """Return the spec of the R1PlusTenant of the deployment's namespace; None if it is missing or invalid."""
    valid_tenants = (one for one in tenants if one.namespace == document.namespace and not find_tenant_problems(one))
    document_of_tenant = next(valid_tenants, None)
    return R1PlusTenantSpec.model_validate(document_of_tenant.spec or {}) if document_of_tenant else None


def _find_tenant_conflicts(spec: R1PlusDeploymentSpec, tenant: R1PlusTenantSpec | None) -> list[str]:
    if tenant is None:
        return []
    placement = check_placement(spec.placement, tenant.placement)
    conflicts = [explain_forbidden_callers(spec, tenant.callers.namespaces), placement.message if placement else ""]
    return [conflict for conflict in conflicts if conflict]


def _find_version_problems(document: Document) -> list[str]:
    version = document.body.get("apiVersion")
    return [] if version == API_VERSION else [f"apiVersion: {version!r:.80} is not supported; use {API_VERSION}"]


def _describe_engine_name_problem(name: str) -> str:
    return (
        f"metadata.name: {name!r:.80} must be at most {MAX_ENGINE_NAME} lower-case letters, digits, '-' and '.':"
        " pods have it as a label"
    )


def _find_name_problems(document: Document) -> list[str]:
    name = document.name
    if not name:
        return ["metadata.name: missing"]
    problems = []
    if len(name) > MAX_NAME:
        problems.append(f"metadata.name: {name!r} has {len(name)} characters, more than {MAX_NAME}")
    if not re.fullmatch(DNS_1035, name):
        problems.append(
            f"metadata.name: {name!r} must be lower-case letters, digits and '-', begin with a letter"
            " and end with a letter or digit: a Service has it"
        )
    return problems


def _find_catalog_problems(spec: R1PlusDeploymentSpec, engines: Sequence[Engine], config: OperatorConfig) -> list[str]:
    choice = choose_engine([build_engine_candidate(engine) for engine in engines], build_engine_request(spec, config))
    engine = next((e for e in engines if e.name == choice.engine), None)
    if engine is None:
        return [choice.why]
    shape = engine.spec.shape
    # Checked separately, so that both a too large batch and a too large context are reported.
    requests = ((spec.batching.max_batch_size, None), (None, spec.context.max_tokens))
    fits = [fit_memory(shape, batch=batch, context=context, memory_bytes=None) for batch, context in requests]
    return [fit_result.message for fit_result in fits if isinstance(fit_result, Misfit)]
