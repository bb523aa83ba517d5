"""The prober's Prometheus series: names and labels from the contract, every label set present from the start.

Accuracy gauges are the exception: they appear with the first complete sweep, since a 0 would be a claim.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from r1plus_contract import metrics as names
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import SweepFigures, Verdict, Watch, WatchStanding

SKIPPED_NOT_READY: Final = "model_not_ready"
SKIPPED_BUSY: Final = "engine_busy"
SKIP_REASONS: Final = (SKIPPED_NOT_READY, SKIPPED_BUSY)
DETECTORS: Final = ("accuracy", "errors")
DIRECTIONS: Final = ("prompt", "completion")
MOST_TASKS, MOST_TASK_CHARACTERS = 64, 128
"""Limits of the label `task`: a tenant's own suite may have a stratum per item, and each is twenty series."""
OTHER_TASKS: Final = "other"
"""Label of the strata beyond the limit."""
_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30.0, 60.0)


class Exposition:
    """A registry of its own, so that a test can have many."""

    def __init__(self, namespace: str, deployment: str, revision: str) -> None:
        """The values of `metrics.LABELS` for this pod."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._tasks: set[str] = set()
        self._own = namespace, deployment, revision
        self._results = self._add_counter(names.PROBE_RESULTS_TOTAL, "Probes by outcome.", "task", "outcome")
        self._skips = self._add_counter(names.PROBE_SKIPPED_TOTAL, "Probes not sent, by reason.", "reason")
        self._tokens = self._add_counter(names.PROBE_TOKENS_TOTAL, "Tokens that probes used.", "direction")
        self._restarts = self._add_counter(names.PROBER_RESTARTS_TOTAL, "Restarts of the prober in this pod.")
        self._duration = Histogram(
            names.PROBE_DURATION_SECONDS,
            "Time to a whole answer.",
            (*names.LABELS, "task"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._service_results = self._add_counter(
            names.SERVICE_PROBE_RESULTS_TOTAL, "Probes through the Service by outcome.", "outcome"
        )
        self._service_duration = Histogram(
            names.SERVICE_PROBE_DURATION_SECONDS,
            "Time to a whole answer through the Service.",
            names.LABELS,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._shadow_results = self._add_counter(
            names.SHADOW_PROBE_RESULTS_TOTAL, "Probes of a suite that does not count yet, by outcome.", "outcome"
        )
        self._ratio = self._add_gauge(names.ACCURACY_RATIO, "Share of items right in the last complete sweep.")
        self._lower = self._add_gauge(
            names.ACCURACY_LOWER_BOUND_RATIO, "Its lower bound, alpha 0.001 (Clopper-Pearson)."
        )
        self._upper = self._add_gauge(
            names.ACCURACY_UPPER_BOUND_RATIO, "Its upper bound, alpha 0.001 (Clopper-Pearson)."
        )
        self._threshold = self._add_gauge(names.ACCURACY_THRESHOLD_RATIO, "Least share that may serve.")
        self._scored_at = self._add_gauge(names.PROBE_LAST_SCORED_TIMESTAMP_SECONDS, "When a probe was last scored.")
        self._suite = self._add_gauge(
            names.GOLDEN_SUITE_INFO, "The suite in use; 1.", "suite", "suite_hash", "scorer_version"
        )
        self._verdict = self._add_gauge(names.GATE_VERDICT, "1 for the present verdict, 0 for the others.", "verdict")
        self._progress = self._add_gauge(names.GATE_PROGRESS_RATIO, "Share of the gate's probes that are scored.")
        self._evidence = self._add_gauge(
            names.DETECTOR_EVIDENCE_RATIO, "Evidence of a change as a share of what raises the alarm.", "detector"
        )
        self._standing = self._add_gauge(names.STANDING, "1 for the present standing, 0 for the others.", "standing")
        self._confirmed = self._add_gauge(names.CONFIRMED_RATIO, "Share of items right in the sweep after the alarm.")
        self._replay = self._add_gauge(names.SCORER_REPLAY, "1: recorded answers get their recorded scores; 0: not so.")
        self._init_series()

    def record_probe(self, task: str, outcome: str, seconds: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one probe."""
        task = self._limit_task(task)
        self._results.labels(*self._own, task, outcome).inc()
        self._duration.labels(*self._own, task).observe(seconds)
        self._tokens.labels(*self._own, "prompt").inc(prompt_tokens)
        self._tokens.labels(*self._own, "completion").inc(completion_tokens)
        if outcome in (names.OutcomeLabel.CORRECT, names.OutcomeLabel.INCORRECT):
            self._scored_at.labels(*self._own).set_to_current_time()

    def record_service_probe(self, outcome: str, seconds: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one probe through the Service: its tokens are probes' tokens, its outcome is not this pod's."""
        self._service_results.labels(*self._own, outcome).inc()
        self._service_duration.labels(*self._own).observe(seconds)
        self._tokens.labels(*self._own, "prompt").inc(prompt_tokens)
        self._tokens.labels(*self._own, "completion").inc(completion_tokens)

    def record_shadow_probe(
        self, _task: str, outcome: str, _seconds: float, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Count one probe of a shadow suite; its strata are not those of the suite that counts."""
        self._shadow_results.labels(*self._own, outcome).inc()
        self._tokens.labels(*self._own, "prompt").inc(prompt_tokens)
        self._tokens.labels(*self._own, "completion").inc(completion_tokens)

    def record_skip(self, reason: str) -> None:
        """Count a probe that was not sent."""
        self._skips.labels(*self._own, reason).inc()

    def record_restarts(self, times: int) -> None:
        """Add the supervisor's count; call it once at the start."""
        self._restarts.labels(*self._own).inc(times)

    def set_suite(self, suite: Suite, threshold: float) -> None:
        """Show a suite and its strata, all outcomes at 0."""
        self._suite.clear()
        header = suite.header
        self._suite.labels(*self._own, header.name, header.sha256, header.scorer_version).set(1)
        self._threshold.labels(*self._own).set(threshold)
        for task in map(self._limit_task, suite.strata()):
            self._duration.labels(*self._own, task)
            for outcome in names.OutcomeLabel.ALL:
                self._results.labels(*self._own, task, outcome)

    def set_verdict(self, verdict: Verdict) -> None:
        """Show the present verdict."""
        for member in Verdict:
            self._verdict.labels(*self._own, member.value).set(member is verdict)

    def set_progress(self, ratio: float) -> None:
        """Show how far the gate is."""
        self._progress.labels(*self._own).set(ratio)

    def set_accuracy(self, figures: SweepFigures | None) -> None:
        """Show the last complete sweep, or nothing where there is none for this suite."""
        for gauge in (self._ratio, self._lower, self._upper):
            gauge.clear()
        if figures is not None and figures.total:
            self._ratio.labels(*self._own).set(figures.correct / figures.total)
            self._lower.labels(*self._own).set(figures.lower)
            self._upper.labels(*self._own).set(figures.upper)

    def set_evidence(self, accuracy: float, errors: float) -> None:
        """Show both detectors: M / A, 1 or more from the alarm on."""
        for detector, ratio in zip(DETECTORS, (accuracy, errors), strict=True):
            self._evidence.labels(*self._own, detector).set(ratio)

    def set_watch(self, watch: Watch | None) -> None:
        """Show the standing of the watch; all standings are 0 while there is none."""
        for member in WatchStanding:
            present = watch is not None and watch.standing is member
            self._standing.labels(*self._own, member.value).set(present)
        self._confirmed.clear()
        figures = watch.confirmation if watch else None
        if figures is not None and figures.total:
            self._confirmed.labels(*self._own).set(figures.correct / figures.total)

    def set_replay(self, right: bool | None) -> None:
        """Show the result of the replay; nothing where no answers are recorded, since a 1 would be a claim."""
        self._replay.clear()
        if right is not None:
            self._replay.labels(*self._own).set(right)

    def render(self) -> bytes:
        """Render the exposition format, for `/metrics`."""
        return generate_latest(self.registry)

    def _limit_task(self, stratum: str) -> str:
        """Return the label of a stratum, within the limits."""
        task = stratum[:MOST_TASK_CHARACTERS]
        if task not in self._tasks and len(self._tasks) >= MOST_TASKS:
            return OTHER_TASKS
        self._tasks.add(task)
        return task

    def _init_series(self) -> None:
        for reason in SKIP_REASONS:
            self._skips.labels(*self._own, reason)
        for direction in DIRECTIONS:
            self._tokens.labels(*self._own, direction)
        for outcome in names.OutcomeLabel.ALL:
            self._service_results.labels(*self._own, outcome)
            self._shadow_results.labels(*self._own, outcome)
        self._service_duration.labels(*self._own)
        self._restarts.labels(*self._own)
        self._scored_at.labels(*self._own).set(0)
        self.set_progress(0)
        self.set_verdict(Verdict.NO_DATA)
        self.set_evidence(0, 0)
        self.set_watch(None)

    def _add_counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, (*names.LABELS, *labels), registry=self.registry)

    def _add_gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, (*names.LABELS, *labels), registry=self.registry)
