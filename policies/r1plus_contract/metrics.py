"""Metric names and label names: exported by one room, queried by rules and dashboards of another."""

from typing import Final

LABELS: Final = ("namespace", "deployment", "revision")
"""On every monitor series. Never an item, a prompt or an answer."""

# Monitor (the sidecar).
PROBE_RESULTS_TOTAL: Final = "r1plus_probe_results_total"  # + task, outcome
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

# Engine (Triton's own /metrics, through the Python backend's custom metrics).
ENGINE_TOKENS_TOTAL: Final = "r1plus_engine_tokens_total"  # + direction
ENGINE_TIME_TO_FIRST_TOKEN_SECONDS: Final = "r1plus_engine_time_to_first_token_seconds"
ENGINE_RUNNING_REQUESTS: Final = "r1plus_engine_running_requests"
ENGINE_WAITING_REQUESTS: Final = "r1plus_engine_waiting_requests"
ENGINE_REQUESTS_TOTAL: Final = "r1plus_engine_requests_total"  # + result: ok|refused|cancelled|error

# Operator.
RECONCILE_TOTAL: Final = "r1plus_reconcile_total"  # + result
RECONCILE_DURATION_SECONDS: Final = "r1plus_reconcile_duration_seconds"
API_WRITES_TOTAL: Final = "r1plus_api_writes_total"  # + kind
QUEUE_DEPTH: Final = "r1plus_queue_depth"
LEADER: Final = "r1plus_leader"

# Alerts.
ALERT_BELOW_THRESHOLD: Final = "R1PlusAccuracyBelowThreshold"
ALERT_NO_DATA: Final = "R1PlusAccuracyNoData"


class Outcome:
    """Values of the label `outcome`."""

    CORRECT: Final = "correct"
    INCORRECT: Final = "incorrect"
    ERROR: Final = "error"
    TIMEOUT: Final = "timeout"
    UNSCORABLE: Final = "unscorable"
    ALL: Final = ("correct", "incorrect", "error", "timeout", "unscorable")
