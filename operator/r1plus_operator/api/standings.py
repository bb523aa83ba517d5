"""What a reason says of an object as GitOps tools read it: it moves by itself, it waits for a person, or it rests.

`plan/status/kstatus_conditions.py` derives the conditions Reconciling and Stalled by it, for the reason that decides.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from r1plus_operator.api.conditions import Reason


class KstatusStanding(StrEnum):
    """Where an object stands on its way to what its spec asks for."""

    RECONCILING = "Reconciling"
    """The operator, or what it waits for, moves it on."""
    STALLED = "Stalled"
    """It waits for a person."""
    AT_REST = "AtRest"
    """Ready says the rest."""


_RECONCILING: Final = (
    Reason.IN_PLACE_ROLLOUT,
    Reason.DELIVERING,
    Reason.GATE_RUNNING,
    Reason.SUITE_SHADOWED,
    Reason.ROLLING_BACK,
    Reason.ROLLING_OUT,
    Reason.STARTING,
    Reason.ISSUER_UNKNOWN,
    Reason.LOCKED,
)
_STALLED: Final = (
    Reason.INVALID_SPEC,
    Reason.REVISION_LOST,
    Reason.ENGINE_NOT_FOUND,
    Reason.ENGINE_NOT_DELIVERED,
    Reason.RUNTIME_NOT_SERVED,
    Reason.REFERENCE_LOWER,
    Reason.CONFIG_REFUSED,
    Reason.DELIVERY_FAILED,
    Reason.STORAGE_FULL,
    Reason.ENGINE_DIGEST_MISMATCH,
    Reason.ARCHITECTURE_MISMATCH,
    Reason.IMAGE_PULL_FAILED,
    Reason.CRASH_LOOPING,
    Reason.FOREIGN_POD,
    Reason.ENGINE_INCOMPATIBLE,
    Reason.OUT_OF_MEMORY,
    Reason.CONTEXT_TOO_LONG,
    Reason.BATCH_TOO_LARGE,
    Reason.NO_NODE_FITS,
    Reason.PLACEMENT_NOT_ALLOWED,
    Reason.GPU_NOT_FOUND,
    Reason.STORAGE_NOT_SHARED,
    Reason.UNSCHEDULABLE,
    Reason.QUOTA_EXCEEDED,
    Reason.POD_REFUSED,
    Reason.GATE_FAILED,
    Reason.PASS_UNPROVEN,
    Reason.IMAGE_CHANGED,
    Reason.BELOW_THRESHOLD,
    Reason.ROLLED_BACK,
    Reason.ROLLBACK_BLOCKED,
    Reason.ROLLBACK_TARGET_ALSO_FAILED,
    Reason.SUITE_MISMATCH,
    Reason.SUITE_NOT_FOUND,
    Reason.SUITE_HASH_MISMATCH,
    Reason.SUITE_INVALID,
    Reason.THRESHOLD_UNREACHABLE,
    Reason.ISOLATION_BROKEN,
    Reason.NETWORK_POLICY_NOT_ENFORCED,
    Reason.NAMESPACE_NOT_RESTRICTED,
    Reason.NAMESPACE_NOT_TENANT,
    Reason.NAMESPACE_RESERVED,
    Reason.CALLER_NOT_ALLOWED,
    Reason.EGRESS_NOT_OPENED,
    Reason.KEY_MISSING,
    Reason.IMAGE_NOT_SET,
    Reason.NAME_TAKEN,
    Reason.KEY_LOST,
    Reason.WRONG_KEY,
    Reason.FOREIGN_TENANT,
    Reason.DATA_CORRUPT,
    Reason.VOLUME_FULL,
    Reason.VOLUME_READ_ONLY,
    Reason.SCHEMA_NEWER,
    Reason.MIGRATION_FAILED,
    Reason.CONFIG_INVALID,
    Reason.DATABASE_UNAVAILABLE,
    Reason.TOO_MANY_FILES,
    Reason.CLOCK_AHEAD,
    Reason.CANDIDATE_REFUSED,
    Reason.DEADLINE_EXCEEDED,
    Reason.WRITE_REFUSED,
    Reason.BLOCKED,
)
_AT_REST: Final = (
    Reason.PENDING,
    Reason.SERVING,
    Reason.SCALED_TO_ZERO,
    Reason.NOT_SERVING,
    Reason.NO_ENDPOINTS,
    Reason.ENGINE_CHOSEN,
    Reason.ENGINE_LOADING,
    Reason.ENGINE_LOADED,
    Reason.FITS,
    Reason.GATE_PASSED,
    Reason.GATE_INCONCLUSIVE,
    Reason.ACCURACY_CHANGED,
    Reason.SERVER_ERRORS,
    Reason.BAD_POD,
    Reason.NO_DATA,
    Reason.NOT_YET_KNOWN,
    Reason.ISOLATION_ENFORCED,
    Reason.PROBING,
    Reason.PROBING_OFF,
    Reason.POLICIES_NOT_ENFORCED,
    Reason.PROBE_FAILED,
    Reason.PROBE_OVERDUE,
    Reason.NETWORK_POLICIES_APPLIED,
    Reason.DELETING,
    Reason.READY,
    Reason.DISABLED,
    Reason.WIRED,
    Reason.NO_PROMETHEUS_OPERATOR,
    Reason.PROMETHEUS_NOT_CONFIGURED,
    Reason.PROMETHEUS_UNREACHABLE,
    Reason.RULE_NOT_LOADED,
    Reason.RULE_FAILING,
    Reason.TARGET_MISSING,
    Reason.TARGET_DOWN,
    Reason.COMPLETE,
    Reason.PINNED,
    Reason.PAUSED,
)
STANDINGS: Final[Mapping[Reason, KstatusStanding]] = MappingProxyType(
    {
        **dict.fromkeys(_RECONCILING, KstatusStanding.RECONCILING),
        **dict.fromkeys(_STALLED, KstatusStanding.STALLED),
        **dict.fromkeys(_AT_REST, KstatusStanding.AT_REST),
    }
)
"""Every reason -> what it says where it decides (`kstatus_conditions`). A new reason gets a place here."""
