"""The keys of the work queue: what a pass is over, and the function that asks for one.

Each kind of pass has a type of its own, so the router decides by the type, and no name of an object is special.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from r1plus_contract import names
from r1plus_operator.runtime.fairness import Priority


class DeploymentKey(NamedTuple):
    """An R1PlusDeployment. Equal to the plain tuple of namespace and name, by which the caches are asked."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{names.KIND_DEPLOYMENT} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class TenantKey:
    """A namespace as a tenant: its network policies, its gateway, and what its R1PlusTenant grants."""

    namespace: str

    def __str__(self) -> str:
        return f"tenant {self.namespace}"


@dataclass(frozen=True, slots=True)
class VolumesKey:
    """The engine volumes of a namespace."""

    namespace: str

    def __str__(self) -> str:
        return f"volumes of namespace {self.namespace}"


@dataclass(frozen=True, slots=True)
class CatalogKey:
    """The engines that this version ships. There is one such key."""

    namespace: str = ""
    """Always empty: an R1PlusEngine has no namespace."""

    def __str__(self) -> str:
        return "engine catalog"


PassKey = DeploymentKey | TenantKey | VolumesKey | CatalogKey
CATALOG = CatalogKey()


class Enqueue(Protocol):
    """Function that asks for a pass that starts after the call. It returns at once."""

    def __call__(self, key: PassKey, priority: Priority = Priority.NORMAL, *, is_edit: bool = False) -> None:
        """Ask for a pass over `key`.

        `URGENT` is for network policies that somebody changed, accuracy drops and requests of people. `LOW` is for new
        deployments, first reports, and many keys at once. `is_edit`: a tenant may cause this event without end, so its
        namespace's pace decides when the key is enqueued.
        """
