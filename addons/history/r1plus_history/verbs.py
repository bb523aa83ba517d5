"""`r1plus history`, `r1plus engines` and `r1plus evaluations`: what the registry recorded."""

from typing import Annotated

import typer

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.options import (
    KubeconfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    RegistryOption,
    open_console,
    print_document,
)
from r1plus_cli.registry import DEFAULT, Registry, RegistryAddress, TunnelCluster, parse_address
from r1plus_history import text


def history_command(
    name: Annotated[str, typer.Argument(help="The R1PlusDeployment.")],
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    registry: RegistryOption = DEFAULT,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show what ran when, and why: revisions, gates with figures, promotions, accuracy drops, rollbacks and requests.

    The registry keeps more than the cluster itself. Only the platform team sees deleted deployments.

    Example: `r1plus history credit -n team-credit`
    """
    space = namespace or _get_default_namespace(kubeconfig)
    response = _open_registry(registry, kubeconfig).read_histories(space, name)
    if not response.items:
        raise CliError(f"{space}/{name}: nothing is recorded; check the name: r1plus status -A")
    if output is Output.TABLE:
        text.show_histories(open_console(), response.items)
    else:
        print_document(response, output)


def engines_command(
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TABLE,
    registry: RegistryOption = DEFAULT,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List every engine that is or was in the catalog: source of its files and reference, and its gates."""
    response = _open_registry(registry, kubeconfig).read_engines(namespace)
    if output is Output.TABLE:
        text.show_engines(open_console(), response.items)
    else:
        print_document(response, output)


def evaluations_command(
    name: Annotated[str | None, typer.Argument(help="One R1PlusDeployment; without it, all of the tenant.")] = None,
    namespace: NamespaceOption = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="All tenants.")] = False,
    items: Annotated[bool, typer.Option("--items", help="Results per item: right or lost.")] = False,
    output: OutputOption = Output.TABLE,
    registry: RegistryOption = DEFAULT,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """List gates with their figures, newest first: what was scored, on which suite, at which batch."""
    if name is not None and everywhere:
        raise UsageError("A name needs one namespace: give -n, not -A")
    space = None if everywhere else namespace or _get_default_namespace(kubeconfig)
    response = _open_registry(registry, kubeconfig).read_evaluations(space, name, items=items)
    if output is Output.TABLE:
        text.show_evaluations(open_console(), response.items)
    else:
        print_document(response, output)


def _open_registry(text: str, kubeconfig: str | None) -> Registry:
    address: RegistryAddress = parse_address(text)

    def cluster() -> TunnelCluster:
        from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster

        return KubernetesCluster(kubeconfig)

    return Registry(address, cluster)


def _get_default_namespace(kubeconfig: str | None) -> str:
    from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster

    return KubernetesCluster(kubeconfig).get_default_namespace()
