"""Compare what a version stored with what another one makes of it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RENAMED_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "WallsHeld": "IsolationEnforced",
        "WallOpen": "IsolationBroken",
        "WallsStand": "NetworkPoliciesApplied",
        "BothArmsBad": "RollbackTargetAlsoFailed",
        "ControlOverdue": "RollbackTargetOverdue",
        "PrometheusNotAsked": "PrometheusNotConfigured",
    }
)
"""Reason of a stored condition -> what the same is called today."""
RENAMED_STATUS_FIELDS: Mapping[str, str] = MappingProxyType({"noLastGood": "rollbackBlockers"})
"""Field of a stored R1PlusDeployment's `status` -> its name today."""


def lost_values(stored: Any, today: Any, path: str = "") -> list[str]:
    """Return each value of `stored` that `today` lacks or holds otherwise, as `path: stored, not today's`.

    `today` may have more fields. Lists are compared item by item. A stored null is the same as nothing.
    """
    if isinstance(stored, dict) and isinstance(today, dict):
        return [line for key, value in stored.items() for line in lost_values(value, today.get(key), f"{path}.{key}")]
    if isinstance(stored, list) and isinstance(today, list) and len(stored) == len(today):
        pairs = enumerate(zip(stored, today, strict=True))
        return [line for place, pair in pairs for line in lost_values(*pair, f"{path}[{place}]")]
    return [] if stored == today else [f"{path.lstrip('.')}: {stored!r:.200}, not {today!r:.200}"]
