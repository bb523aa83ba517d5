"""An update while `serve` runs: prepared, gated beside what serves by the plan's own rollout, kept or taken back.

It decides nothing: it gives the plan another spec, and tells what the plan makes of it.
"""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NoReturn

from r1plus_contract.verdict import Phase
from r1plus_edge.control import UpdateClient
from r1plus_edge.controller import Controller
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.pod import LocalPod
from r1plus_edge.progress import compute_percent
from r1plus_edge.report import Narrator, Reporter, StartStep, StepInProgress
from r1plus_edge.start.machine import check_machine, read_machine
from r1plus_edge.update.handover import Handover, HandoverKind
from r1plus_edge.update.options import UpdatableOptions
from r1plus_edge.update.request import UpdateRecord, UpdateRequest, UpdateResult, keep_texts, save_record
from r1plus_edge.update.slots import check_slot, is_own
from r1plus_edge.update.trial import run_trial
from r1plus_edge.world import Installation, Preparation, has_room_for_trial, prepare
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.record import Revision, find_current_revision

MOST_FAILURES: Final = 3
"""Of a candidate's container in a row, after which its update is taken back: the deadline of a rollout is an hour."""
_STANDARD_INPUT: Final = frozenset({"-", "-f-", "--file=-"})
_WAITS: Final = frozenset({Reason.DELIVERING.value, Reason.COMPLETE.value})
"""Of condition Progressing, False: what does not end an update."""


@dataclass(slots=True)
class Updater:
    """Carries out one update at a time."""

    controller: Controller
    installation: Installation
    options: UpdatableOptions
    """Those of the start."""
    record: UpdateRecord
    reporter: Reporter
    handover: Handover | None = None
    """To other software that has passed its trial: all of this has to end, and then it takes over."""
    is_busy: bool = False
    """Whether an update is under way."""
    _has_passed: asyncio.Event = field(default_factory=asyncio.Event)

    def notice_pass(self) -> None:
        """Look at what the last pass has made of the update."""
        self._has_passed.set()

    async def run(self, asked: UpdateRequest, asker: UpdateClient) -> UpdateResult:
        """Carry out an update, and return what came of it; refuse a second one meanwhile."""
        if self.is_busy:
            return UpdateResult(False, "Another update is under way; `r1plus serve status` shows it. Repeat it later")
        self.is_busy = True
        narrator = _Both(asker, self.reporter)
        try:
            asked = await asyncio.to_thread(keep_texts, asked, self.installation.folder.requests)
            if asked.software and not is_own(Path(asked.software)):
                result = await self._try_software(asked, narrator, asker)
            else:
                result = await self._run(replace(asked, software=""), narrator)
        except PermissionError as error:
            result = UpdateResult(
                False,
                f"{error.filename}: the user that serves may not read it; put an engine into"
                f" {self.options.cache / 'engines'}, or give a bundle",
            )
        except (EdgeError, OSError) as error:
            result = UpdateResult(False, f"{error}")
        finally:
            self.is_busy = False
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
        if not result.is_in_force:
            self.controller.ask_for(*former)
            self.controller.wake.set()
        return self._settle(request if result.is_in_force else self.record.in_force, result)

    def _settle(self, in_force: UpdateRequest, result: UpdateResult) -> UpdateResult:
        """Put what is decided on record. Without room for it the next start finds it by what has taken traffic."""
        record = UpdateRecord(self.record.origin, in_force)
        try:
            self._save(record)
            self._remove_other_files()
        except OSError as error:
            self.record = record
            return replace(result, text=f"{result.text}. This is not on record yet: {error}; free some disk")
        return result

    async def _try_software(self, asked: UpdateRequest, narrator: "_Both", asker: UpdateClient) -> UpdateResult:
        """Gate other software beside what serves; on a Pass it takes over, and answers itself.

        Raises:
            EdgeError: it is none that what serves can turn into.
            OSError: it cannot be started.
        """
        software = self._check_software(Path(asked.software))
        request = replace(asked, software=str(software)).on_top_of(self.record.in_force)
        trial = Handover(HandoverKind.TRIAL, request, data=str(self.installation.folder.trial.root))
        has_room = await asyncio.to_thread(self._has_room_for_trial, request)
        try:
            await self._gate_software(trial, narrator, has_room=has_room)
        except (EdgeError, OSError) as error:
            serves = find_current_revision(self.controller.revisions.values())
            return UpdateResult(False, f"Fail, taken back, {serves.name if serves else 'nothing'} serves: {error}")
        narrator.note("switching: callers wait until the new software answers")
        return await self._hand_over(trial, asker)

    def _check_software(self, software: Path) -> Path:
        """Return the folder of software that can be tried now. Raises EdgeError: it cannot, or none can."""
        # Of what it names now: who asks may let a link name something else later.
        software = check_slot(software)
        if self.controller.serving_pod is None:
            raise EdgeError(
                "nothing serves now, so no other software can be gated beside it; see `r1plus serve status`"
            )
        if any(word in _STANDARD_INPUT for word in self.options.words):
            raise EdgeError("-f -: other software cannot read standard input again; start `r1plus serve` with a file")
        return software

    async def _gate_software(self, trial: Handover, narrator: "_Both", *, has_room: bool) -> None:
        """Let other software pass its trial, beside what serves where there is room for both.

        Raises:
            EdgeError: it does not pass.
            OSError: it cannot be started.
        """
        software, folder = Path(trial.request.software), self.installation.folder

        def tell(percent: int, text: str) -> None:
            narrator.progress("gate", percent, text)

        with _suspend(self.controller, is_needed=not has_room), narrator.time_step("trial") as step:
            if not has_room:
                narrator.note("the memory does not hold both: what serves stops for the gate")
                await self._await_end_of_pods()
            status = await run_trial(software, self.options.words, trial, folder, tell)
            step.detail = f"{describe_measurement(status.verdict, status.accuracy)} with {software}"

    async def _await_end_of_pods(self) -> None:
        while self.controller.list_pods():
            await self._has_passed.wait()
            self._has_passed.clear()

    async def _hand_over(self, trial: Handover, asker: UpdateClient) -> NoReturn:
        """Let all of this end, and what has passed its trial take over. It never returns: this process becomes that."""
        # Who asked may leave, and the number be another file's.
        descriptor = os.dup(asker.descriptor) if asker.descriptor else 0
        self.handover = replace(trial, kind=HandoverKind.FORWARD, data="", former=sys.prefix, asker=descriptor)
        self.controller.wake.set()
        await asyncio.Event().wait()
        raise AssertionError("the new software answers")

    def _has_room_for_trial(self, request: UpdateRequest) -> bool:
        try:
            options = self.options.reread(request)
        except EdgeError:  # Only the new software may be able to read it.
            options = self.options
        return has_room_for_trial(options, self.installation, self.controller.revisions)

    def _remove_other_files(self) -> None:
        """Remove the R1PlusDeployments and golden suites of updates that are not in force."""
        # By name: the data folder may have been named by another path.
        kept = {Path(self.record.in_force.file).name, Path(self.record.in_force.suite).parent.name}
        requests = self.installation.folder.requests
        for path in requests.iterdir() if requests.is_dir() else ():
            if path.name in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _check_name(self, options: UpdatableOptions) -> None:
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


@contextmanager
def _suspend(controller: Controller, *, is_needed: bool) -> Iterator[None]:
    """Let what serves end for the block, and serve again where the block fails, however it does."""
    controller.is_suspended = is_needed
    controller.wake.set()
    try:
        yield
    except BaseException:
        controller.is_suspended = False
        controller.wake.set()
        raise


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
        accuracy = f": {status['accuracy']} right" if status.get("accuracy") else ""
        return UpdateResult(True, f"{status.get('verdict', 'No verdict')}, {serves}{accuracy}")
    return None


def describe_measurement(verdict: str, accuracy: str) -> str:
    """Return what was measured of what serves, for people."""
    return f"{verdict or 'No verdict'}, {accuracy} right" if accuracy else verdict or "Not measured"


def describe_failing(pod: LocalPod | None) -> str:
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
        done = StartStep(name, step.detail, round(time.monotonic() - began, 1))
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
