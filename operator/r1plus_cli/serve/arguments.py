"""What the options of `r1plus serve` name, read and checked; an update's are on top of those of the start."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from r1plus_cli import local
from r1plus_cli.deployment.validate import find_problems
from r1plus_cli.documents import Document, read_documents
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.serve.tenant_request import read_tenant
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT, KIND_TENANT
from r1plus_contract.verdict import Gate
from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.start.deployment import DEFAULT_NAMESPACE, ServeRequest, build_request
from r1plus_edge.start.engines import find_default_data, select_engines
from r1plus_edge.start.listening import Listening
from r1plus_edge.update.request import UpdateRequest
from r1plus_model_repo.catalog.types import Engine, Tier
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.config import read_suite_folder
from r1plus_operator.observe.suite_projection import read_suite_source
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import SuiteTrust
from r1plus_policies.rollback.response import BAKE_SECONDS

if TYPE_CHECKING:
    from r1plus_edge.update.options import UpdatableOptions


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """The options of the command line that decide what is served; those of an update are on top of them."""

    tier: Tier | None
    file: str | None
    engine: str
    gate: Gate | None
    own_suites: tuple[str, ...]
    """As given with --suite; the last one is asked for."""
    listening: Listening
    data: Path | None
    catalogs: tuple[Path, ...]
    """The engines of a later one replace those of the same name."""
    suites: Path
    family: str
    is_file_updated: bool = False
    """Whether `file` is an update's; then the suite that it names holds."""

    def update(self, request: UpdateRequest) -> "ServeArguments":
        """Return the arguments with an update on top. A file of its own says all that it can say."""
        updated = self
        if request.file:
            updated = replace(updated, tier=None, gate=None, engine="", file=request.file, is_file_updated=True)
        return replace(
            updated,
            engine=request.engine or updated.engine,
            own_suites=(*self.own_suites, request.suite) if request.suite else self.own_suites,
            catalogs=(*self.catalogs, Path(request.catalog)) if request.catalog else self.catalogs,
        )


def build_options(arguments: ServeArguments, documents: dict[str, list[Document]] | None = None) -> "UpdatableOptions":
    """Read what the arguments name. Raises CliError, EdgeError: it cannot be read, or means nothing here.

    `documents`: of `arguments.file`, where it was read before: standard input gives them once.
    """
    from r1plus_edge.update.options import UpdatableOptions  # With the libraries of extra `edge`, as above.

    engines = tuple(
        {
            engine.name: engine
            for folder in arguments.catalogs
            for engine in local.load_engines(folder, arguments.family)
        }.values()
    )
    sources, digests, suite = local.load_suites(arguments.suites), set(SHIPPED_SUITES.values()), ""
    for given in arguments.own_suites:
        suite = given
        if given not in sources:
            own = _read_suite(Path(given))
            sources, suite = {**sources, own.name: own}, own.name
            # Who names the folder decides what serves on this machine.
            digests.add(own.digest)
    documents = documents or _read_file(arguments.file, arguments.tier)
    if arguments.is_file_updated and documents[KIND_TENANT]:
        raise UsageError(f"-f {arguments.file}: an R1PlusTenant holds from a start on: give it to `r1plus serve`")
    request = _read_request(arguments, documents[KIND_DEPLOYMENT], suite, engines)
    tenant = read_tenant(documents[KIND_TENANT], arguments.catalogs, request.namespace)
    selected, files = select_engines(arguments.engine, engines)
    if arguments.engine and request.spec.tier not in (tiers := {engine.spec.tier: engine.name for engine in selected}):
        tier, name = next(iter(tiers.items()))
        raise UsageError(
            f"--engine {name}: it is of tier {tier.value}, and tier {request.spec.tier.value} is asked for; give --tier"
            f" {tier.value}, or `tier: {tier.value}` in an R1PlusDeployment, also to `r1plus serve update -f`"
        )
    if arguments.engine and len(selected) == 1:
        request = request.select_engine(selected[0])

    def reread(update: UpdateRequest) -> UpdatableOptions:
        try:
            return build_options(arguments.update(update), None if update.file else documents)
        except CliError as error:
            raise EdgeRequestError(str(error)) from error

    return UpdatableOptions(
        request=request,
        engines=selected,
        suites=sources,
        trust=SuiteTrust(shipped_digests=frozenset(digests)),
        family=arguments.family,
        data=(arguments.data or find_default_data()).absolute(),
        listening=arguments.listening,
        reread=reread,
        given_engine=files,
        catalog=engines,
        words=tuple(sys.argv[1:]),
        bake_seconds=float(os.environ.get("R1PLUS_BAKE_SECONDS", BAKE_SECONDS)),
        tenant=tenant,
    )


def _read_suite(folder: Path) -> SuiteSource:
    """Read a golden suite of the user's own."""
    if not folder.is_dir():
        names = ", ".join(sorted(local.load_suites(local.SHIPPED_SUITES)))
        raise UsageError(f"--suite {folder}: no shipped suite has this name, and no folder; shipped are {names}")
    source = read_suite_source(folder.absolute().name, read_suite_folder(folder))
    if source.suite is None:
        raise UsageError(f"--suite {folder}: {source.problem}; `r1plus suite verify {folder}` lists all")
    return source


def _read_file(file: str | None, tier: Tier | None) -> dict[str, list[Document]]:
    """Return kind -> objects of the file. With --tier an R1PlusTenant is enough."""
    if file is None and tier is None:
        raise UsageError("--tier: say what to serve: full, lite or edge; or give an R1PlusDeployment with -f")
    kinds = (KIND_DEPLOYMENT,) if tier is None else (KIND_DEPLOYMENT, KIND_TENANT)
    documents = read_documents(file, *kinds) if file is not None else {KIND_DEPLOYMENT: [], KIND_TENANT: []}
    if len(documents[KIND_DEPLOYMENT]) > 1:
        raise UsageError(f"-f {file}: has {len(documents[KIND_DEPLOYMENT])} R1PlusDeployments; one machine serves one")
    return documents


def _read_request(
    arguments: ServeArguments, deployments: list[Document], suite: str, engines: tuple[Engine, ...]
) -> ServeRequest:
    tier = arguments.tier
    name = tier.value if tier is not None else ""
    body = {"apiVersion": API_VERSION, "metadata": {"name": name}, "spec": {"tier": name}}
    document = Document("--tier", body)
    if deployments:
        (document,) = deployments
    if problems := find_problems(document, engines, local.build_config(arguments.family)):
        raise UsageError("\n".join(f"{document.title}: {problem}" for problem in problems))
    try:
        spec = R1PlusDeploymentSpec.model_validate(document.spec)
    except ValidationError as error:
        raise UsageError(f"{document.title}: {error}") from error
    if arguments.is_file_updated and spec.accuracy.suite:
        suite = ""
    namespace = str(document.metadata.get("namespace") or DEFAULT_NAMESPACE)
    return build_request(document.name, namespace, spec, tier=name, gate=arguments.gate, suite=suite)
