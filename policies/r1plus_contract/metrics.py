"""Metric names and label names: exported by one room, queried by rules and dashboards of another."""

from typing import Final

LABELS: Final = ("namespace", "deployment", "revision")
"""On every monitor series. Never an item, a prompt or an answer."""

# Monitor (the sidecar).
PROBE_RESULTS_TOTAL: Final = "r1plus_probe_results_total"  # + task, outcome
SERVICE_PROBE_RESULTS_TOTAL: Final = "r1plus_service_probe_results_total"  # + outcome; of probes through the Service
SERVICE_PROBE_DURATION_SECONDS: Final = "r1plus_service_probe_duration_seconds"  # histogram
SHADOW_PROBE_RESULTS_TOTAL: Final = "r1plus_shadow_probe_results_total"  # + outcome; of a suite that does not count yet
PROBE_SKIPPED_TOTAL: Final = "r1plus_probe_skipped_total"  # + reason
PROBE_TOKENS_TOTAL: Final = "r1plus_probe_tokens_total"  # + direction
PROBE_DURATION_SECONDS: Final = "r1plus_probe_duration_seconds"  # histogram, + task
ACCURACY_RATIO: Final = "r1plus_accuracy_ratio"
ACCURACY_LOWER_BOUND_RATIO: Final = "r1plus_accuracy_lower_bound_ratio"
ACCURACY_UPPER_BOUND_RATIO: Final = "r1plus_accuracy_upper_bound_ratio"
ACCURACY_THRESHOLD_RATIO: Final = "r1plus_accuracy_threshold_ratio"
PROBE_LAST_SCORED_TIMESTAMP_SECONDS: Final = "r1plus_probe_last_scored_timestamp_seconds"
GOLDEN_SUITE_INFO: Final = "r1plus_golden_suite_info"  # + suite, suite_hash, scorer_version
GATE_VERDICT: Final = "r1plus_gate_verdict"  # + verdict; 1 for the present one, 0 for the others
GATE_PROGRESS_RATIO: Final = "r1plus_gate_progress_ratio"
PROBER_RESTARTS_TOTAL: Final = "r1plus_prober_restarts_total"
DETECTOR_EVIDENCE_RATIO: Final = "r1plus_accuracy_detector_evidence_ratio"  # + detector: accuracy | errors; 1 alarms
STANDING: Final = "r1plus_accuracy_standing"  # + standing; 1 for the present one, 0 for the others
CONFIRMED_RATIO: Final = "r1plus_accuracy_confirmed_ratio"
SCORER_REPLAY: Final = "r1plus_scorer_replay"  # 1: recorded answers get their recorded scores; 0: they do not

# Engine (Triton's own /metrics, through the Python backend's custom metrics).
ENGINE_TOKENS_TOTAL: Final = "r1plus_engine_tokens_total"  # + direction
ENGINE_TIME_TO_FIRST_TOKEN_SECONDS: Final = "r1plus_engine_time_to_first_token_seconds"
ENGINE_RUNNING_REQUESTS: Final = "r1plus_engine_running_requests"
ENGINE_WAITING_REQUESTS: Final = "r1plus_engine_waiting_requests"
ENGINE_SCHEMA_BYTES: Final = "r1plus_engine_schema_bytes"  # of compiled schemas and grammars, as estimated
ENGINE_SCHEMA_USED_RATIO: Final = "r1plus_engine_schema_used_ratio"  # of their limit; 0: the library bounds them itself
ENGINE_REQUESTS_TOTAL: Final = (
    "r1plus_engine_requests_total"  # + result: ok|counted|refused|queue_full|schema_memory_full|cancelled|error
)

# Gateway.
GATEWAY_REQUESTS_TOTAL: Final = "r1plus_gateway_requests_total"  # + model, key, outcome; ended requests
GATEWAY_TOKENS_TOTAL: Final = "r1plus_gateway_tokens_total"  # + model, key, direction: prompt|completion; as billed
GATEWAY_CANCELLED_TOTAL: Final = "r1plus_gateway_cancelled_total"  # + model, key, state: queued|waiting|streaming|ended
GATEWAY_CODE_RUNS_TOTAL: Final = "r1plus_gateway_code_runs_total"  # + model, key, outcome; see docs/code.md
GATEWAY_UNSETTLED_TOTAL: Final = "r1plus_gateway_unsettled_total"  # requests whose use could not be recorded
GATEWAY_TIME_TO_FIRST_TOKEN_SECONDS: Final = "r1plus_gateway_time_to_first_token_seconds"  # histogram, + model
GATEWAY_TIME_PER_OUTPUT_TOKEN_SECONDS: Final = "r1plus_gateway_time_per_output_token_seconds"  # histogram, + model
GATEWAY_QUEUE_SECONDS: Final = "r1plus_gateway_queue_seconds"  # histogram, + model; the wait for a slot
GATEWAY_KEY_FIRST_TOKEN_SECONDS: Final = "r1plus_gateway_key_time_to_first_token_seconds"  # sum and count, + model, key
GATEWAY_KEY_OUTPUT_TOKEN_SECONDS: Final = (
    "r1plus_gateway_key_time_per_output_token_seconds"  # sum and count, + model, key
)
GATEWAY_KEY_QUEUE_SECONDS: Final = "r1plus_gateway_key_queue_seconds"  # sum and count, + model, key
GATEWAY_BUDGET_LIMIT_TOKENS: Final = "r1plus_gateway_budget_limit_tokens"  # + key; a month's, of keys with a budget
GATEWAY_BUDGET_LEFT_TOKENS: Final = "r1plus_gateway_budget_left_tokens"  # + key; of this month (UTC)
GATEWAY_RUNNING_REQUESTS: Final = "r1plus_gateway_running_requests"  # + model
GATEWAY_WAITING_REQUESTS: Final = "r1plus_gateway_waiting_requests"  # + model
GATEWAY_PODS: Final = "r1plus_gateway_pods"  # + model; pods that take requests
GATEWAY_DATA_STATE: Final = "r1plus_gateway_data_state"  # + reason, as of GatewayReady; 1 for the present one, else 0
GATEWAY_CONTENT_BYTES: Final = "r1plus_gateway_content_bytes"  # stored conversations and responses of the tenant
GATEWAY_CONTENT_LIMIT_BYTES: Final = "r1plus_gateway_content_limit_bytes"  # beyond it nothing more is stored
GATEWAY_SETTINGS_VALID: Final = "r1plus_gateway_settings_valid"  # 0: the file is not usable, the last good one is used

# Operator.
RECONCILE_TOTAL: Final = "r1plus_reconcile_total"  # + result
RECONCILE_DURATION_SECONDS: Final = "r1plus_reconcile_duration_seconds"
API_WRITES_TOTAL: Final = "r1plus_api_writes_total"  # + kind
QUEUE_DEPTH: Final = "r1plus_queue_depth"
LEADER: Final = "r1plus_leader"
LAST_PASS_TIMESTAMP_SECONDS: Final = "r1plus_last_pass_timestamp_seconds"
DEPLOYMENT_INFO: Final = "r1plus_deployment_info"  # + namespace, deployment, revision, tier, engine
DEPLOYMENT_CONDITION: Final = "r1plus_deployment_condition"  # + type as well; 1 True, 0 False, -1 Unknown
DEPLOYMENT_THRESHOLD_RATIO: Final = "r1plus_deployment_threshold_ratio"  # + namespace, deployment
POOL_EVIDENCE_RATIO: Final = "r1plus_pool_evidence_ratio"  # + namespace, deployment, revision, detector
POOL_ACCURACY_LOWER_RATIO: Final = "r1plus_pool_accuracy_lower_ratio"  # + namespace, deployment, revision
POOL_ACCURACY_UPPER_RATIO: Final = "r1plus_pool_accuracy_upper_ratio"  # + namespace, deployment, revision
ROLLBACKS_TOTAL: Final = "r1plus_rollbacks_total"  # + namespace, deployment, reason
ROLLBACK_BLOCKED: Final = "r1plus_rollback_blocked"  # + namespace, deployment, reason; 1 while blocked
CANDIDATE_REFUSED: Final = (
    "r1plus_candidate_refused"  # + namespace, deployment; 1 while the spec's revision has failed its gate
)
ROLLOUT_OVERDUE: Final = (
    "r1plus_rollout_overdue"  # + namespace, deployment; 1 while the spec's revision is past its deadline
)
REVISION_LOST: Final = "r1plus_revision_lost"  # + namespace, deployment; 1 while what serves has no readable revision
RUNTIME_OUTDATED: Final = "r1plus_runtime_outdated"  # + namespace, deployment, triton, monitor (images that serve)
RUNTIME_VULNERABLE: Final = (
    "r1plus_runtime_vulnerable"  # + namespace, deployment; 1: runtime.vulnerable names its image
)
REFRESH_FAILED: Final = (
    "r1plus_refresh_failed"  # + namespace, deployment; 1 while this stops updates of other deployments
)
GATEWAY_READY: Final = "r1plus_gateway_ready"  # + namespace; GatewayReady: 1 True, 0 False, -1 Unknown; if enabled
GATEWAY_READY_PODS: Final = "r1plus_gateway_ready_pods"  # + namespace; pods that take requests; if enabled
ISOLATION_VERIFIED: Final = "r1plus_isolation_verified"  # + namespace; 1 True, 0 False, -1 Unknown
ISOLATION_TRIES: Final = "r1plus_isolation_tries"  # + namespace, outcome: held|open|unseen; of the newest run
ISOLATION_RUN_TIMESTAMP_SECONDS: Final = "r1plus_isolation_run_timestamp_seconds"  # + namespace; when it ended
FACTS_WAITING: Final = "r1plus_registry_facts_waiting"
FACTS_DELIVERED_TOTAL: Final = "r1plus_registry_facts_delivered_total"
FACTS_REFUSED_TOTAL: Final = "r1plus_registry_facts_refused_total"
QUARANTINES_TOTAL: Final = "r1plus_quarantines_total"  # + namespace, deployment

# Alerts.
ALERT_BELOW_THRESHOLD: Final = "R1PlusAccuracyBelowThreshold"
ALERT_CHANGED: Final = "R1PlusAccuracyChanged"
ALERT_NOT_VERIFIED: Final = "R1PlusAccuracyNotVerified"
ALERT_NO_DATA: Final = "R1PlusAccuracyNoData"
ALERT_SERVER_ERRORS: Final = "R1PlusServerErrorsInProbes"
ALERT_GATE_FAILED: Final = "R1PlusGateFailed"
ALERT_ROLLOUT_OVERDUE: Final = "R1PlusRolloutOverdue"
ALERT_REVISION_LOST: Final = "R1PlusRevisionLost"
ALERT_ROLLED_BACK: Final = "R1PlusRolledBack"
ALERT_ROLLBACK_BLOCKED: Final = "R1PlusRollbackBlocked"
ALERT_SUITE_MISMATCH: Final = "R1PlusSuiteMismatch"
ALERT_DOWN: Final = "R1PlusDown"
ALERT_HIGH_LATENCY: Final = "R1PlusHighLatency"
ALERT_QUEUE_GROWING: Final = "R1PlusQueueGrowing"
ALERT_SCHEMA_MEMORY_FULL: Final = "R1PlusSchemaMemoryFull"
ALERT_OPERATOR_STALLED: Final = "R1PlusOperatorStalled"
ALERT_REGISTRY_BEHIND: Final = "R1PlusRegistryBehind"
ALERT_RUNTIME_OUTDATED: Final = "R1PlusRuntimeOutdated"
ALERT_RUNTIME_WAVE_STOPPED: Final = "R1PlusRuntimeWaveStopped"
ALERT_GATEWAY_DOWN: Final = "R1PlusGatewayDown"
ALERT_GATEWAY_DATA_PROBLEM: Final = "R1PlusGatewayDataProblem"
ALERT_GATEWAY_ERRORS: Final = "R1PlusGatewayErrors"
ALERT_GATEWAY_HIGH_LATENCY: Final = "R1PlusGatewayHighLatency"
ALERT_GATEWAY_BUDGET_EXHAUSTED: Final = "R1PlusGatewayBudgetExhausted"
ALERT_GATEWAY_CONTENT_NEAR_LIMIT: Final = "R1PlusGatewayContentNearLimit"
ALERT_ISOLATION_BROKEN: Final = "R1PlusIsolationBroken"
ALERT_ISOLATION_NOT_VERIFIED: Final = "R1PlusIsolationNotVerified"


class OutcomeLabel:
    """Values of the label `outcome`."""

    CORRECT: Final = "correct"
    INCORRECT: Final = "incorrect"
    ERROR: Final = "error"
    TIMEOUT: Final = "timeout"
    UNSCORABLE: Final = "unscorable"
    ALL: Final = ("correct", "incorrect", "error", "timeout", "unscorable")
