"""Condition types and reasons: stable names that users script against."""

from dataclasses import dataclass
from enum import StrEnum


class ConditionType(StrEnum):
    """Every condition, in the order shown. Ready and IsolationVerified are also an R1PlusTenant's."""

    READY = "Ready"
    ENGINE_READY = "EngineReady"
    CAPACITY_FITS = "CapacityFits"
    QUALITY_VERIFIED = "QualityVerified"
    ISOLATION_VERIFIED = "IsolationVerified"
    ALERTS_WIRED = "AlertsWired"
    PROGRESSING = "Progressing"
    GATEWAY_READY = "GatewayReady"
    """Of an R1PlusTenant only."""
    DATA_READY = "DataReady"
    """Of an R1PlusTenant only."""
    RECONCILING = "Reconciling"
    """Of both; there only while it is True."""
    STALLED = "Stalled"
    """Of both; there only while it is True."""


KSTATUS_CONDITIONS = (ConditionType.RECONCILING, ConditionType.STALLED)
"""The conditions for GitOps tools. They repeat what others say, so neither Events nor metrics follow them."""
DEPLOYMENT_CONDITIONS = tuple(
    kind
    for kind in ConditionType
    if kind not in (ConditionType.GATEWAY_READY, ConditionType.DATA_READY, *KSTATUS_CONDITIONS)
)
"""The conditions that every R1PlusDeployment has."""


class Reason(StrEnum):
    """Why a condition has its status."""

    # Any condition, while nothing is known.
    INVALID_SPEC = "InvalidSpec"
    PENDING = "Pending"
    # Ready
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    NOT_SERVING = "NotServing"
    IN_PLACE_ROLLOUT = "InPlaceRollout"
    NO_ENDPOINTS = "NoEndpoints"
    REVISION_LOST = "RevisionLost"
    # EngineReady
    ENGINE_CHOSEN = "EngineChosen"
    ENGINE_NOT_FOUND = "EngineNotFound"
    ENGINE_NOT_DELIVERED = "EngineNotDelivered"
    RUNTIME_NOT_SERVED = "RuntimeNotServed"
    REFERENCE_LOWER = "ReferenceLower"
    CONFIG_REFUSED = "ConfigRefused"
    DELIVERING = "Delivering"
    DELIVERY_FAILED = "DeliveryFailed"
    STORAGE_FULL = "StorageFull"
    ENGINE_DIGEST_MISMATCH = "EngineDigestMismatch"
    ARCHITECTURE_MISMATCH = "ArchitectureMismatch"
    ENGINE_LOADING = "EngineLoading"
    ENGINE_LOADED = "EngineLoaded"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    FOREIGN_POD = "ForeignPod"
    ENGINE_INCOMPATIBLE = "EngineIncompatible"
    OUT_OF_MEMORY = "OutOfMemory"
    # CapacityFits
    FITS = "Fits"
    CONTEXT_TOO_LONG = "ContextTooLong"
    BATCH_TOO_LARGE = "BatchTooLarge"
    NO_NODE_FITS = "NoNodeFits"
    PLACEMENT_NOT_ALLOWED = "PlacementNotAllowed"
    GPU_NOT_FOUND = "GpuNotFound"
    STORAGE_NOT_SHARED = "StorageNotShared"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REFUSED = "PodRefused"
    # QualityVerified
    GATE_PASSED = "GatePassed"
    GATE_RUNNING = "GateRunning"
    GATE_FAILED = "GateFailed"
    GATE_INCONCLUSIVE = "GateInconclusive"
    PASS_UNPROVEN = "PassUnproven"
    IMAGE_CHANGED = "ImageChanged"
    BELOW_THRESHOLD = "BelowThreshold"
    ACCURACY_CHANGED = "AccuracyChanged"
    SERVER_ERRORS = "ServerErrors"
    BAD_POD = "BadPod"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_BLOCKED = "RollbackBlocked"
    ROLLBACK_TARGET_ALSO_FAILED = "RollbackTargetAlsoFailed"
    SUITE_MISMATCH = "SuiteMismatch"
    SUITE_SHADOWED = "SuiteShadowed"
    SUITE_NOT_FOUND = "SuiteNotFound"
    SUITE_HASH_MISMATCH = "SuiteHashMismatch"
    SUITE_INVALID = "SuiteInvalid"
    THRESHOLD_UNREACHABLE = "ThresholdUnreachable"
    NO_DATA = "NoData"
    NOT_YET_KNOWN = "NotYetKnown"
    # IsolationVerified
    ISOLATION_ENFORCED = "IsolationEnforced"
    PROBING = "Probing"
    PROBING_OFF = "ProbingOff"
    POLICIES_NOT_ENFORCED = "PoliciesNotEnforced"
    PROBE_FAILED = "ProbeFailed"
    PROBE_OVERDUE = "ProbeOverdue"
    ISOLATION_BROKEN = "IsolationBroken"
    NETWORK_POLICY_NOT_ENFORCED = "NetworkPolicyNotEnforced"
    NAMESPACE_NOT_RESTRICTED = "NamespaceNotRestricted"
    NAMESPACE_NOT_TENANT = "NamespaceNotTenant"
    NAMESPACE_RESERVED = "NamespaceReserved"
    CALLER_NOT_ALLOWED = "CallerNotAllowed"
    # Ready of an R1PlusTenant
    NETWORK_POLICIES_APPLIED = "NetworkPoliciesApplied"
    EGRESS_NOT_OPENED = "EgressNotOpened"
    DELETING = "Deleting"
    # GatewayReady, DataReady
    READY = "Ready"
    STARTING = "Starting"
    DISABLED = "Disabled"
    KEY_MISSING = "KeyMissing"
    IMAGE_NOT_SET = "ImageNotSet"
    ISSUER_UNKNOWN = "IssuerUnknown"
    NAME_TAKEN = "NameTaken"
    # GatewayReady and DataReady, by what the gateway reports of its data (`contract.gateway.DataReason`)
    KEY_LOST = "KeyLost"
    WRONG_KEY = "WrongKey"
    FOREIGN_TENANT = "ForeignTenant"
    DATA_CORRUPT = "DataCorrupt"
    VOLUME_FULL = "VolumeFull"
    VOLUME_READ_ONLY = "VolumeReadOnly"
    LOCKED = "Locked"
    SCHEMA_NEWER = "SchemaNewer"
    MIGRATION_FAILED = "MigrationFailed"
    CONFIG_INVALID = "ConfigInvalid"
    DATABASE_UNAVAILABLE = "DatabaseUnavailable"
    TOO_MANY_FILES = "TooManyFiles"
    CLOCK_AHEAD = "ClockAhead"
    # AlertsWired
    WIRED = "Wired"
    NO_PROMETHEUS_OPERATOR = "NoPrometheusOperator"
    PROMETHEUS_NOT_CONFIGURED = "PrometheusNotConfigured"
    PROMETHEUS_UNREACHABLE = "PrometheusUnreachable"
    RULE_NOT_LOADED = "RuleNotLoaded"
    RULE_FAILING = "RuleFailing"
    TARGET_MISSING = "TargetMissing"
    TARGET_DOWN = "TargetDown"
    # Progressing
    COMPLETE = "Complete"
    ROLLING_OUT = "RollingOut"
    CANDIDATE_REFUSED = "CandidateRefused"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    WRITE_REFUSED = "WriteRefused"
    BLOCKED = "Blocked"
    PINNED = "Pinned"
    PAUSED = "Paused"


@dataclass(frozen=True, slots=True)
class Finding:
    """The content of a condition: what a pass found for it."""

    status: str
    reason: Reason
    message: str
