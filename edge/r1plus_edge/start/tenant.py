"""The tenant of this machine: an R1PlusTenant, of a file or by default, as far as it means something here.

Who owns the machine is the tenant. By default all of a gateway is on that costs nothing until it is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.start.deployment import format_value
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_operator.api.tenants import DeletionPolicy, Quota, R1PlusTenantSpec

DEFAULT_SPEC: Final = R1PlusTenantSpec.model_validate(
    {
        "gateway": {
            "enabled": True,
            "calculator": True,
            "knowledge": True,
            "embedding": {"engine": "all-minilm-l6-v2"},
            "limits": {"chunksPerKey": 100_000},
        },
        "data": {"retentionDays": 30},
    }
)
"""Without an R1PlusTenant. The first key is the owner's, and may have all chunks."""
_Spec = R1PlusTenantSpec
_NO_CLUSTER: Final = "there is no cluster with users and namespaces; leave the field out"
_NO_PODS: Final = "there are no pods of your own; leave the field out"
_REFUSED: Final[tuple[tuple[str, Callable[[_Spec], Any], str], ...]] = (
    ("admins", lambda s: tuple(one.name for one in s.admins) or None, _NO_CLUSTER),
    ("viewers", lambda s: tuple(one.name for one in s.viewers) or None, _NO_CLUSTER),
    ("callers.namespaces", lambda s: s.callers.namespaces or None, "callers have API keys here; leave the field out"),
    ("egress", lambda s: tuple(one.cidr or one.namespace for one in s.egress) or None, _NO_PODS),
    ("quota", lambda s: _list_set(s.quota) if s.quota != Quota() else None, _NO_PODS),
    ("placement", lambda s: _list_set(s.placement) or None, "there is one node; leave the field out"),
    ("runAsUser", lambda s: s.run_as_user, "processes run as you; leave the field out"),
    (
        "gateway.enabled",
        lambda s: "false" if "enabled" in s.gateway.model_fields_set and not s.gateway.enabled else None,
        "nothing else answers callers here; leave the field out",
    ),
    (
        "gateway.replicas",
        lambda s: s.gateway.replicas if s.gateway.replicas != 1 else None,
        "one machine runs one gateway; leave the field out",
    ),
    (
        "gateway.directAccess",
        lambda s: None if s.gateway.direct_access else "false",
        "nothing here closes the engine's port on loopback; leave the field out, and see docs/reference/edge.md#limits",
    ),
    (
        "gateway.from",
        lambda s: tuple(one.cidr or one.namespace for one in s.gateway.from_) or None,
        "say where to listen with --listen; leave the field out",
    ),
    (
        "gateway.tls",
        lambda s: s.gateway.tls and s.gateway.tls.secret_name,
        "there are no Secrets; give --tls-cert and --tls-key",
    ),
    (
        "gateway.database",
        lambda s: s.gateway.database and s.gateway.database.secret_name,
        "there are no Secrets: the data are encrypted in the data folder; leave the field out",
    ),
    (
        "data.deletionPolicy",
        lambda s: s.data.deletion_policy.value if s.data.deletion_policy is DeletionPolicy.DELETE else None,
        "no object is deleted here: delete the data folder yourself; leave the field out",
    ),
)
"""Field of the spec, its value if it is refused, and why with the remedy."""


@dataclass(frozen=True, slots=True)
class TenantRequest:
    """The tenant to serve."""

    spec: R1PlusTenantSpec
    embedding: EmbeddingEngine | None
    """The engine that the spec names; None: it names none."""


def build_tenant(spec: R1PlusTenantSpec, engines: Sequence[EmbeddingEngine]) -> TenantRequest:
    """Return the request of a spec. `engines`: those of kind embedding in the catalog.

    Raises:
        EdgeRequestError: every field that means nothing on one machine, and an engine that the catalog has not.
    """
    problems = [
        f"spec.{field}: {format_value(value)}: {why}"
        for field, read, why in _REFUSED
        if (value := read(spec)) is not None
    ]
    wanted = spec.gateway.embedding
    embedding = next((one for one in engines if wanted is not None and one.name == wanted.engine), None)
    if wanted is not None and embedding is None:
        known = ", ".join(one.name for one in engines) or "none"
        problems.append(
            f"spec.gateway.embedding.engine: {wanted.engine}: the catalog has no engine of kind embedding of this name;"
            f" it has {known}"
        )
    if problems:
        raise EdgeRequestError("\n".join(problems))
    gateway = spec.gateway.model_copy(update={"enabled": True})
    return TenantRequest(spec.model_copy(update={"gateway": gateway}), embedding)


def _list_set(part: Any) -> tuple[str, ...]:
    """Return the names of the fields that somebody has set."""
    return tuple(part.model_dump(mode="json", by_alias=True, exclude_unset=True))
