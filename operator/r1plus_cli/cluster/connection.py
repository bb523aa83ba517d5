"""The cluster of a command's `--kubeconfig`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster


def connect(kubeconfig: str | None) -> "KubernetesCluster":
    """Return the cluster of a kubeconfig; None: of the environment. Raise CliError if there is none."""
    # Late: the package `kubernetes` would double the start time of `plan` and `validate`.
    from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster

    return KubernetesCluster(kubeconfig)
