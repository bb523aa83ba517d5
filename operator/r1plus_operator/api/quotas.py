"""A tenant's quota as Kubernetes counts it, and what to do where a quota is full."""

import re
from collections.abc import Mapping
from typing import Final

TENANT_QUOTA: Final = "r1plus-tenant"
"""The ResourceQuota of a tenant's namespace."""
QUOTA_FIELDS: Final[Mapping[str, str]] = {
    "count/configmaps": "configMaps",
    "count/networkpolicies.networking.k8s.io": "networkPolicies",
    "count/r1plusdeployments.r1plus.ai": "deployments",
    "count/secrets": "secrets",
    "count/services": "services",
    "pods": "pods",
    "requests.cpu": "cpu",
    "requests.memory": "memory",
    "requests.nvidia.com/gpu": "gpus",
    "requests.storage": "storage",
    "requests.ephemeral-storage": "ephemeralStorage",
}
"""What a ResourceQuota counts -> the field of an R1PlusTenant's `spec.quota` that limits it."""
_FULL: Final = re.compile(r"exceeded quota: (\S+), requested: ([^=]+)=")


def find_quota_remedy(error: str) -> str:
    """Return what to do about the full quota that the API server names; empty: it names none."""
    if (full := _FULL.search(error)) is None:
        return ""
    quota, counted = full.groups()
    field = QUOTA_FIELDS.get(counted) if quota == TENANT_QUOTA else None
    place = f"spec.quota.{field} of the R1PlusTenant" if field else f"{counted} of ResourceQuota {quota}"
    return f"raise {place}, or delete what the tenant does not need of it; the operator retries every minute"
