"""The cluster as commands see it: a Protocol, for which tests use a fake.

Separate from `kubernetes_cluster`, so that `plan` and `validate` do not load the `kubernetes` package.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

Json = dict[str, Any]


class Cluster(Protocol):
    """What commands need from a cluster."""

    def get_default_namespace(self) -> str:
        """Return the namespace of the user's context."""

    def list_deployments(self, namespace: str | None) -> list[Json]:
        """Return all R1PlusDeployments of a namespace, or of all namespaces (None)."""

    def get_deployment(self, namespace: str, name: str) -> Json:
        """Return one R1PlusDeployment. Raise CliError if it does not exist."""

    def watch_changes(self, namespace: str | None) -> Iterator[Json]:
        """Yield R1PlusDeployments as they change, forever; each one once at the start."""

    def list_engines(self) -> list[Json]:
        """Return every R1PlusEngine of the catalog."""

    def list_nodes(self) -> list[Json] | None:
        """Return every node; None if the user may not list them, as is usual for tenants."""

    def is_operator_ready(self) -> bool | None:
        """Return whether a pod of the operator is Ready; None if the user may not list pods of all namespaces."""

    def list_suites(self, namespace: str) -> list[Json]:
        """Return the ConfigMaps of the namespace that have golden suites."""

    def forward(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """Yield `host:port` on loopback that leads to a Ready pod of the Service while the context is open."""
