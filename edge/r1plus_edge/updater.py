"""An update while `serve` runs: prepared, gated beside what serves by the plan's own rollout, kept or taken back.

It decides nothing: it gives the plan another spec, and tells what the plan makes of it.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from r1plus_contract.verdict import Phase
from r1plus_edge.controller import Controller
from r1plus_edge.errors import EdgeError
from r1plus_edge.machine import check_machine, read_machine
from r1plus_edge.options import ServeOptions
from r1plus_edge.pod import Pod
from r1plus_edge.progress import compute_percent
from r1plus_edge.report import Narrator, Reporter, Step, StepInProgress
from r1plus_edge.update import UpdateRecord, UpdateRequest, UpdateResult, save_record
from r1plus_edge.world import Installation, Preparation, prepare
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision, find_current_revision

MOST_FAILURES: Final = 3
"""Of a candidate's container in a row, after which its update is taken back: the deadline of a rollout is an hour."""
_WAITS: Final = frozenset({Reason.DELIVERING.value, Reason.COMPLETE.value})
"""Of condition Progressing, False: what does not end an update."""


@dataclass(slots=True)
class Updater:
    """Carries out one update at a time."""

    controller: Controller
    installation: Installation
    options: ServeOptions
    """Those of the start."""
    record: UpdateRecord
    reporter: Reporter
    _has_passed: asyncio.Event = field(default_factory=asyncio.Event)
    _is_busy: bool = False

    def notice_pass(self) -> None:
        """Look at what the last pass has made of the update."""
        self._has_passed.set()

    async def run(self, asked: UpdateRequest, narrator: Narrator) -> UpdateResult:
        """Carry out an update, and return what came of it; refuse a second one meanwhile."""
        if self._is_busy:
            return UpdateResult(False, "Another update is under way; `r1plus serve status` shows it. Repeat it later")
        self._is_busy = True
        try:
            result = await self._run(asked, _Both(narrator, self.reporter))
        except (EdgeError, OSError) as error:
            result = UpdateResult(False, f"{error}")
        finally:
            self._is_busy = False
            self.reporter.update(update="")
        self.reporter.narrator.note(f"Update: {result.text}")
        return result

    async def _run(self, asked: UpdateRequest, narrator: "_Both") -> UpdateResult:
        request = asked.on_top_of(self.record.in_force)
        with narrator.time_step("request"):
            options = await asyncio.to_thread(self.options.reread, request)
            self._check_name(options)
            root = self.installation.folder.root
            check_machine(await asyncio.to_thread(read_machine, root), root)
        with narrator.time_step("engine") as step:
            preparation = await prepare(
                options, self.installation, self.controller.revisions, narrator.note, verifies=True
            )
            step.detail = f"{preparation.target.engine.name} in {preparation.files}, sha256 verified"
        former = self.controller.request, self.controller.world
        self._save(UpdateRecord(self.record.origin, self.record.in_force, pending=request))
        self._ask(preparation)
        try:
            result = await self._follow(narrator)
        except BaseException:
            self.controller.ask_for(*former)
            raise
        if result.is_in_force:
            self._save(UpdateRecord(self.record.origin, request))
        else:
            self.controller.ask_for(*former)
            self.controller.wake.set()
            self._save(UpdateRecord(self.record.origin, self.record.in_force))
        self._remove_other_files()
        return result

    def _remove_other_files(self) -> None:
        """Remove the R1PlusDeployments of updates that are not in force."""
        # By name: who asked may have named the data folder by another path.
        kept = Path(self.record.in_force.file).name
        for file in self.installation.folder.requests.glob("*.yaml"):
            if file.name != kept:
                file.unlink(missing_ok=True)

    def _check_name(self, options: ServeOptions) -> None:
        own, given = self.options.request, options.request
        if (given.namespace, given.name) != (own.namespace, own.name):
            raise EdgeError(
                f"metadata.name: the file is of deployment {given.namespace}/{given.name}, and"
                f" {own.namespace}/{own.name} serves here; give that name, or serve the"
                " other one from a folder of its own with --data"
            )

    def _ask(self, preparation: Preparation) -> None:
        self._has_passed.clear()
        self.controller.ask_for(preparation.request, preparation.world)
        self.controller.wake.set()

    def _save(self, record: UpdateRecord) -> None:
        if record != self.record:
            save_record(self.installation.folder.update, record)
            self.record = record

    async def _follow(self, narrator: "_Both") -> UpdateResult:
        """Wait for what the plan makes of the request."""
        while True:
            await self._has_passed.wait()
            self._has_passed.clear()
            status = self.controller.objects.deployment["status"]
            candidate = str(status.get("candidate") or "")
            if candidate and candidate != self.record.candidate:
                self._save(replace(self.record, candidate=candidate))
            pod = next((one for one in self.controller.list_pods() if one.facts.revision == candidate), None)
            failing, is_up = describe_failing(pod), self.controller.serving_pod is not None
            result = judge(self.controller.objects.deployment, self.controller.revisions, failing, is_up=is_up)
            if result is not None:
                return result
            report = self.controller.reports.get(pod.name) if pod is not None else None
            if report is not None and report.phase is Phase.GATING and report.progress:
                text = f"suite {report.suite}: {report.progress.text}"
                narrator.progress("gate", compute_percent(report), text)


def judge(
    deployment: Json, revisions: Mapping[str, Revision], failing: str = "", *, is_up: bool = True
) -> UpdateResult | None:
    """Return what came of the newest spec; None while it is on its way.

    `failing`: which container of the candidate ends again and again; `is_up`: whether what has traffic is Ready.
    """
    status: Json = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return None
    current = find_current_revision(revisions.values())
    progress = _find_condition(status, ConditionType.PROGRESSING)
    serves = f"{current.name} ({current.engine}) serves" if current else "nothing serves"
    if failing:
        return UpdateResult(False, f"Fail, taken back, {serves}: {failing}")
    if progress.get("status") == "False" and progress["reason"] not in _WAITS:
        quality = _find_condition(status, ConditionType.QUALITY_VERIFIED)
        is_gate = progress["reason"] == Reason.CANDIDATE_REFUSED.value
        text = quality.get("message", "") if is_gate else f"{progress['reason']}: {progress['message']}"
        return UpdateResult(False, f"Fail, taken back, {serves}: {text}")
    has_arrived = current is not None and current.last_valid is not None and current.last_valid.target == current.name
    if has_arrived and progress.get("reason") == Reason.COMPLETE.value and is_up:
        return UpdateResult(
            True, f"{status.get('verdict', 'No verdict')}, {serves}: {status.get('accuracy', '')} right"
        )
    return None


def describe_failing(pod: Pod | None) -> str:
    """Return which container of a pod fails again and again, with the end of its log; empty: none does."""
    containers = pod.containers if pod is not None else ()
    return next((one.describe_failure() for one in containers if one.failures >= MOST_FAILURES), "")


def _find_condition(status: Json, kind: ConditionType) -> Json:
    conditions: list[Json] = status.get("conditions", [])
    return next((one for one in conditions if one["type"] == kind.value), {})


class _Both:
    """Tells the client that asked for the update, and the terminal of `serve`."""

    def __init__(self, narrator: Narrator, reporter: Reporter) -> None:
        self._narrators = (narrator, reporter.narrator)
        self._reporter = reporter

    @contextmanager
    def time_step(self, name: str) -> Iterator[StepInProgress]:
        """Tell a step when the block ends; the block sets its text."""
        self._reporter.update(update=name)
        step, began = StepInProgress(), time.monotonic()
        yield step
        done = Step(name, step.detail, round(time.monotonic() - began, 1))
        for narrator in self._narrators:
            narrator.step(done)

    def progress(self, name: str, percent: int, detail: str) -> None:
        """Tell how far a step is."""
        self._reporter.update(update=f"{name} {percent} %: {detail}")
        for narrator in self._narrators:
            narrator.progress(name, percent, detail)

    def note(self, text: str) -> None:
        """Tell anything else."""
        for narrator in self._narrators:
            narrator.note(f"           {text}")
