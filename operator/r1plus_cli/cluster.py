"""What the command line asks a cluster: the seam that commands take and for which tests give a fake.

Apart from `kubernetes_cluster`, so that `plan` and `validate` need not wait for the `kubernetes` package to load.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

Json = dict[str, Any]


class Cluster(Protocol):
    """What commands need of a cluster."""

    def default_namespace(self) -> str:
        """The namespace of the user's context."""

    def deployments(self, namespace: str | None) -> list[Json]:
        """All R1PlusDeployments of a namespace, or of every one (None)."""

    def deployment(self, namespace: str, name: str) -> Json:
        """One R1PlusDeployment; CliError if there is none."""

    def changes(self, namespace: str | None) -> Iterator[Json]:
        """R1PlusDeployments as they change, for ever; each is told of once at the start."""

    def engines(self) -> list[Json]:
        """Every R1PlusEngine of the catalog."""

    def nodes(self) -> list[Json] | None:
        """Every node; None where the user may not look at them, as tenants usually may not."""

    def operator_ready(self) -> bool | None:
        """Whether a pod of the operator is Ready; None where the user may not look, as tenants usually may not."""

    def suites(self, namespace: str) -> list[Json]:
        """ConfigMaps of the namespace that hold golden suites."""

    def forward(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """`host:port` on loopback that leads to a Ready pod of the Service while the context is open."""
