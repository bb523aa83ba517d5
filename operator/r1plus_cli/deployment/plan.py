"""`r1plus plan`: what the operator would create for an R1PlusDeployment, without a cluster."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from r1plus_cli import local
from r1plus_cli.deployment import plan_text
from r1plus_cli.deployment.preview import build_preview
from r1plus_cli.deployment.spec_files import CatalogOption, FamilyOption, FileOption, show_problems
from r1plus_cli.deployment.validate import find_problems, find_tenant, find_tenant_problems, merge_engines
from r1plus_cli.documents import CONFIG_MAP, read_documents
from r1plus_cli.errors import UsageError
from r1plus_cli.options import open_console
from r1plus_contract.names import KIND_DEPLOYMENT, KIND_ENGINE, KIND_TENANT
from r1plus_model_repo.catalog.quantity import bytes_of


def plan_command(
    file: FileOption,
    output: Annotated[str, typer.Option("-o", "--output", help="text, or yaml: the objects themselves.")] = "text",
    catalog: CatalogOption = local.SHIPPED_CATALOG,
    suites: Annotated[Path, typer.Option("--suites", help="Folder with golden suites.")] = local.SHIPPED_SUITES,
    family: FamilyOption = local.DEFAULT_FAMILY,
    node_memory: Annotated[
        str | None, typer.Option("--node-memory", help="Fit into a node with this allocatable memory, such as 48Gi.")
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(
            "--values",
            exists=True,
            dir_okay=False,
            help="The chart's values: Triton images for GPUs, and with vLLM for CPU. Default: all those for GPUs.",
        ),
    ] = None,
) -> None:
    """Show what the operator would create for an R1PlusDeployment, and why. Needs no cluster.

    Shows the selected engine and why no other, batch and memory term by term, network policies, the gate and every
    object. It also uses engines, tenants and golden suites of the file. What only a cluster knows is assumed and
    listed.
    """
    if output not in ("text", "yaml"):
        raise UsageError(f"--output: {output!r} is neither text nor yaml")
    config, engines, memory = (
        local.build_config(family, values),
        local.load_engines(catalog, family),
        _parse_memory(node_memory),
    )
    console, shipped_suites, has_failed = open_console(), local.load_suites(suites), False
    documents = read_documents(file, KIND_DEPLOYMENT)
    engines, results = merge_engines(documents[KIND_ENGINE], engines)
    results += [(document.title, find_tenant_problems(document)) for document in documents[KIND_TENANT]]
    for title, problems in results:
        if problems:
            show_problems(title, problems)
            has_failed = True
    for document in documents[KIND_DEPLOYMENT]:
        if problems := find_problems(document, engines, config):
            show_problems(document.title, problems)
            has_failed = True
            continue
        suite_sources = {**shipped_suites, **local.select_suites(document, documents[CONFIG_MAP])}
        plan_preview = build_preview(
            document, engines, suite_sources, config, memory, find_tenant(document, documents[KIND_TENANT])
        )
        if output == "yaml":
            sys.stdout.write("---\n" + plan_text.format_yaml(plan_preview))
        else:
            plan_text.show(console, plan_preview)
        has_failed = has_failed or plan_preview.problem is not None or plan_preview.disallowed_callers != ""
    raise typer.Exit(1 if has_failed else 0)


def _parse_memory(quantity: str | None) -> int | None:
    try:
        return None if quantity is None else bytes_of(quantity)
    except ValueError as error:
        raise UsageError(f"--node-memory: {error}") from error
