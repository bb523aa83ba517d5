"""What the monitors and the gateways have reported. The monitor poller writes it, the observer reads it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from r1plus_contract.engine.engine_fetch import FillProgress
from r1plus_contract.gateway import GATEWAY, DataState
from r1plus_contract.verdict import MonitorReport, Verdict, WatchStanding
from r1plus_operator.observe.caches import Caches
from r1plus_operator.observe.keys import DeploymentKey, Enqueue, TenantKey, VolumesKey
from r1plus_operator.observe.monitors.reading_times import ReadingTimes
from r1plus_operator.observe.pod_projection import ServingPod
from r1plus_operator.plan.accuracy.unresponsive import MONITOR_SILENT
from r1plus_operator.plan.observation import AgeBounds, Json, PoolView, read_count_time
from r1plus_operator.plan.tenancy.train_jobs import TRAIN_JOB, format_workers_job
from r1plus_operator.runtime.fairness import Priority

DROPS = frozenset({WatchStanding.BELOW_THRESHOLD, WatchStanding.ERRORS})
"""Standings that the operator answers by a rollback or a quarantine."""


class MonitorReports:
    """Reports, progress and pooled detectors. What changes enqueues the key that it concerns."""

    def __init__(
        self,
        caches: Caches,
        crs: Mapping[DeploymentKey, Json],
        enqueue: Enqueue,
        clock: Callable[[], float],
    ) -> None:
        self._caches = caches
        self._crs = crs
        self._enqueue = enqueue
        self._counts, self._sweeps = ReadingTimes(clock), ReadingTimes(clock)
        self.reports: dict[str, MonitorReport] = {}
        """Pod's uid -> its monitor's last report; a namesake has none yet."""
        self.progress: dict[str, FillProgress] = {}
        """Pod's uid -> how far its Job has filled a volume."""
        self.data_states: dict[str, DataState] = {}
        """uid of a gateway's pod -> whether it can use the tenant's data; none once it has not answered for a while."""
        self.pools: dict[DeploymentKey, PoolView] = {}
        """Deployment -> its pooled detector."""

    def store_report(self, pod: ServingPod, report: MonitorReport) -> None:
        """Store a monitor's report, and enqueue the deployment if it changed; how many requests run is no change."""
        before = self.reports.get(pod.uid)
        self.reports[pod.uid] = report
        if report.reason != MONITOR_SILENT:
            self._counts.record(pod.uid, read_count_time(report))
            self._sweeps.record(pod.uid, report.sweep.finished_at if report.sweep else "")
        if before is None or replace(before, user_requests=report.user_requests) != report:
            # After a start all pods have a first report.
            usual = Priority.LOW if before is None else Priority.NORMAL
            priority = Priority.URGENT if _is_drop(report) else usual
            self._enqueue(DeploymentKey(pod.namespace, pod.deployment), priority)

    def list_count_ages(self, pods: Iterable[ServingPod]) -> dict[str, AgeBounds]:
        """Return pod -> how old its monitor's present count is."""
        return self._counts.list_ages(pods)

    def list_sweep_ages(self, pods: Iterable[ServingPod]) -> dict[str, AgeBounds]:
        """Return pod -> how old the last sweep in its report is."""
        return self._sweeps.list_ages(pods)

    def forget_user_requests(self, pod: ServingPod) -> None:
        """Forget how many requests a pod runs: its monitor has not said so the last time."""
        if report := self.reports.get(pod.uid):
            self.reports[pod.uid] = replace(report, user_requests=None)

    def store_progress(self, pod: ServingPod, progress: FillProgress) -> None:
        """Store how far a Job has filled a volume, and enqueue the namespace's volumes if it changed."""
        if self.progress.get(pod.uid) != progress:
            self.progress[pod.uid] = progress
            self._enqueue(VolumesKey(pod.namespace))

    def store_data_state(self, pod: ServingPod, state: DataState | None) -> None:
        """Store what a gateway reports of its data, None if it is silent, and enqueue the tenant if it changed."""
        if self.data_states.get(pod.uid) == state:
            return
        if state is None:
            del self.data_states[pod.uid]
        else:
            self.data_states[pod.uid] = state
        self._enqueue(TenantKey(pod.namespace))

    def store_pool(self, key: DeploymentKey, view: PoolView | None, *, is_news: bool) -> None:
        """Store what a deployment's pooled detector shows, None if it has none, and enqueue it if that is news."""
        if view is None:
            self.pools.pop(key, None)
        else:
            self.pools[key] = view
        if is_news:
            self._enqueue(key, Priority.URGENT if view and view.evidence >= 1.0 else Priority.NORMAL)

    def drop_stale_pods(self, uids: Collection[str]) -> None:
        """Drop what all pods but these have reported."""
        by_uid: tuple[dict[str, Any], ...] = (
            self.reports, self._counts.by_uid, self._sweeps.by_uid, self.progress, self.data_states,
        )  # fmt: skip
        for values in by_uid:
            for uid in values.keys() - set(uids):
                del values[uid]

    def drop_stale_pools(self) -> None:
        """Drop the pooled detectors of deployments that are gone."""
        for key in self.pools.keys() - self._crs.keys():
            del self.pools[key]

    def list_pods(self) -> tuple[ServingPod, ...]:
        """Return the pods that may be polled: those of a known revision, of a volume's Job, or of a gateway.

        The label alone proves nothing: anyone who may create pods can set it.
        """
        pods = self._caches.pods.store.items()
        return tuple(
            pod for pod in pods if self._is_of_revision(pod) or self._fills_volume(pod) or self._is_of_gateway(pod)
        )

    def list_sweeps(self, key: DeploymentKey) -> dict[str, str]:
        """Return pod -> when the last sweep in its report ended."""
        pods = self._caches.pods.store.by_index(f"{key.namespace}/{key.name}")
        reports = {pod.name: self.reports.get(pod.uid) for pod in pods}
        return {name: report.sweep.finished_at for name, report in reports.items() if report and report.sweep}

    def _is_of_revision(self, pod: ServingPod) -> bool:
        cr = self._crs.get(DeploymentKey(pod.namespace, pod.deployment))
        revision = self._caches.children["ControllerRevision"].store.get(pod.namespace, pod.facts.revision)
        if cr is None or revision is None:
            return False
        is_owned = revision.owner == cr["metadata"]["uid"]
        is_pod_owner = pod.facts.owner_uid == (revision.pods_owner_uid or revision.owner)
        return is_owned and is_pod_owner and pod.facts.is_made_by(revision.name)

    def _fills_volume(self, pod: ServingPod) -> bool:
        job = self._caches.children["Job"].store.get(pod.namespace, pod.volume)
        return (job is not None and job.volume == pod.volume and job.uid == pod.job) or self._trains(pod)

    def _trains(self, pod: ServingPod) -> bool:
        """Whether a pod is one of a TrainJob, whose controllers make a JobSet, and that a Job of this name."""
        if TRAIN_JOB not in self._caches.children or not pod.volume:
            return False
        train_job = self._caches.children[TRAIN_JOB].store.get(pod.namespace, pod.volume)
        return train_job is not None and pod.job_name == format_workers_job(pod.volume)

    def _is_of_gateway(self, pod: ServingPod) -> bool:
        is_ours = pod.is_gateway and not pod.deployment and pod.facts.replica_set.rpartition("-")[0] == GATEWAY
        return is_ours and self._caches.children["Deployment"].store.get(pod.namespace, GATEWAY) is not None


def _is_drop(report: MonitorReport) -> bool:
    """Return whether the pod's monitor reports what the operator must answer."""
    return report.verdict is Verdict.FAIL or (report.watch is not None and report.watch.standing in DROPS)
