"""`r1plus history`, `r1plus engines` and `r1plus evaluations`: what the registry recorded. Words in, calls out."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from r1plus_cli import history_text
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.registry import DEFAULT, Place, Registry, Tunnels, place_of
from r1plus_contract.jsonable import dumps, to_jsonable


class Output(StrEnum):
    """How it is told."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="For people, or for programs.")]
RegistryOption = Annotated[
    str,
    typer.Option("--registry", envvar="R1PLUS_REGISTRY", help="NAMESPACE/NAME of its StatefulSet, or its URL."),
]
NamespaceOption = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Tenant; by default your context's namespace.")
]
KubeconfigOption = Annotated[
    str | None, typer.Option("--kubeconfig", help="By default $KUBECONFIG, then ~/.kube/config.")
]


def history_command(
    name: Annotated[str, typer.Argument(help="The R1PlusDeployment.")],
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    registry: RegistryOption = DEFAULT,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Tell what ran when, and why: revisions, gates with their figures, promotions, falls, rollbacks and requests.

    Beyond what the cluster itself keeps. Of a deployment that was deleted only the platform team is told.

    Example: `r1plus history credit -n team-credit`
    """
    space = namespace or _default_namespace(kubeconfig)
    found = _registry(registry, kubeconfig).histories(space, name)
    if not found.items:
        raise CliError(f"{space}/{name}: nothing is recorded; is there such an R1PlusDeployment? r1plus status -A")
    if output is Output.TABLE:
        history_text.show_histories(_console(), found.items)
    else:
        _print(found, output)


def engines_command(
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    registry: RegistryOption = DEFAULT,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List every engine that is or was on offer: where its files came from, on whose word, and how its gates went."""
    found = _registry(registry, kubeconfig).engines(namespace)
    if output is Output.TABLE:
        history_text.show_engines(_console(), found.items)
    else:
        _print(found, output)


def evaluations_command(
    name: Annotated[str | None, typer.Argument(help="One R1PlusDeployment; without it, of all of the tenant.")] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of every tenant.")] = False,
    items: Annotated[bool, typer.Option("--items", help="Item by item: what was right and what was lost.")] = False,
    output: OutputOption = Output.TABLE,
    registry: RegistryOption = DEFAULT,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List gates with their figures, the newest first: what was scored, on which suite, at which batch."""
    if name is not None and everywhere:
        raise UsageError("A name needs one namespace: give -n, not -A")
    space = None if everywhere else namespace or _default_namespace(kubeconfig)
    found = _registry(registry, kubeconfig).evaluations(space, name, items=items)
    if output is Output.TABLE:
        history_text.show_evaluations(_console(), found.items)
    else:
        _print(found, output)


def _registry(text: str, kubeconfig: str | None) -> Registry:
    place: Place = place_of(text)

    def cluster() -> Tunnels:
        from r1plus_cli.kubernetes_cluster import KubernetesCluster

        return KubernetesCluster(kubeconfig)

    return Registry(place, cluster)


def _default_namespace(kubeconfig: str | None) -> str:
    from r1plus_cli.kubernetes_cluster import KubernetesCluster

    return KubernetesCluster(kubeconfig).default_namespace()


def _console() -> Console:
    return Console(soft_wrap=not sys.stdout.isatty())


def _print(value: Any, output: Output) -> None:
    if output is Output.JSON:
        sys.stdout.write(dumps(value) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(to_jsonable(value), sort_keys=False, allow_unicode=True))
