"""The R1PlusTenant of `r1plus serve -f FILE`."""

from collections.abc import Sequence
from pathlib import Path

from r1plus_cli.deployment.validate import find_tenant_problems
from r1plus_cli.documents import Document
from r1plus_cli.errors import UsageError
from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.start.deployment import DEFAULT_NAMESPACE
from r1plus_edge.start.tenant import DEFAULT_SPEC, TenantRequest, build_tenant
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.loader import load_all_engines
from r1plus_operator.api.tenants import R1PlusTenantSpec


def read_tenant(documents: Sequence[Document], catalogs: Sequence[Path], namespace: str) -> TenantRequest:
    """Return the tenant of a file; by default one with everything on.

    `catalogs`: folders; engines of a later one replace those of the same name. `namespace`: the deployment's.

    Raises:
        UsageError: there are several, it is another namespace's, or a field has no meaning on one machine.
    """
    known = {one.name: one for folder in catalogs for one in load_all_engines(folder)}
    engines = [one for one in known.values() if isinstance(one, EmbeddingEngine)]
    if not documents:
        # A catalog of one's own need not have the engine: then documents are searched by their words.
        names = {one.name for one in engines}
        gateway = DEFAULT_SPEC.gateway
        if gateway.embedding is not None and gateway.embedding.engine not in names:
            gateway = gateway.model_copy(update={"embedding": None})
        return build_tenant(DEFAULT_SPEC.model_copy(update={"gateway": gateway}), engines)
    if len(documents) > 1:
        raise UsageError(f"{documents[1].title}: is the second R1PlusTenant; one machine has one")
    (document,) = documents
    own = str(document.metadata.get("namespace") or DEFAULT_NAMESPACE)
    problems = find_tenant_problems(document)
    if own != namespace:
        problems.append(f"metadata.namespace: {own}: the R1PlusDeployment has {namespace}; give both the same one")
    if not problems:
        try:
            return build_tenant(R1PlusTenantSpec.model_validate(document.spec or {}), engines)
        except EdgeRequestError as error:
            problems = str(error).splitlines()
    raise UsageError("\n".join(f"{document.title}: {problem}" for problem in problems))
