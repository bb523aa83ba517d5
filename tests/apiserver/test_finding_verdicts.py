"""A forged ConfigMap lets nothing in, even where a pod mounts it: a real monitor reads it, on a scripted engine."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.settings import SETTINGS_FILE, VERDICTS_FILE, KnownVerdicts
from r1plus_contract.suite import Item, load_suite
from r1plus_contract.verdict import GateReport, Phase, Verdict
from r1plus_monitoring.client import Reply
from r1plus_monitoring.prober import Prober
from r1plus_operator.plan.revision import Revision, read
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant
from support.monitoring.scripted import Pod, ScriptedEngine, comes_to

pytestmark = pytest.mark.apiserver


class SoundEngine(ScriptedEngine):
    """Answers each item of a suite as its reference does."""

    def __init__(self, items: tuple[Item, ...]) -> None:
        super().__init__(behaviour=self._answer)
        self._answers = {item.prompt: item.answers[0] for item in items}

    async def _answer(self, prompt: str, before: int) -> Reply:
        return Reply(self._answers[prompt], "stop", 5, 1)


@asynccontextmanager
async def monitor(
    folder: Path, revision: Revision, address: str, files: Mapping[str, str], engine: ScriptedEngine
) -> AsyncIterator[tuple[Pod, Prober]]:
    """Run the monitor of a new pod of the revision, which mounts these files."""
    pod = Pod.make(Path(tempfile.mkdtemp(dir=folder)), revision.identity)
    pod.swap(files)
    config = replace(pod.config(), revision=revision.name, host=address, port=names.PORT_MONITOR)
    prober = Prober(config, engine)
    task = asyncio.create_task(prober.run())
    try:
        yield pod, prober
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def forge(files: Mapping[str, str], revision: Revision) -> dict[str, str]:
    """Let the gate observe only, and tell of a Pass of the very engine, suite and threshold that are asked for."""
    settings = json.loads(files[SETTINGS_FILE])
    header = load_suite(files["suite.json"], files["items.jsonl"]).header
    about = (revision.identity_digest, header.name, header.sha256, header.scorer_version, settings["threshold"])
    passed = GateReport(Verdict.PASS, "Passed", "lost 0 of 210 items", *about, 210, 0, 4, batch=revision.batch)
    forged = {SETTINGS_FILE: json.dumps(settings | {"gate": "Observe"}), VERDICTS_FILE: dumps(KnownVerdicts((passed,)))}
    return {**files, **forged}


@pytest.mark.apiserver_sample
async def test_finding_01_a_pass_out_of_a_forged_configuration_is_not_taken(
    operator: OperatorProcess, tenant: Tenant, tmp_path: Path
) -> None:
    serving = await tenant.serve()
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048})
    candidate = await tenant.candidate("credit")
    revision = read(await tenant.present("ControllerRevision", candidate))
    place = Monitors()
    await tenant.run_pod(candidate, ready=True, monitors=place)
    files = (await tenant.present("ConfigMap", "credit-accuracy"))["data"]

    async with monitor(tmp_path, revision, place.address, files, ScriptedEngine(answers=5)) as (pod, prober):
        await tenant.until("credit", "QualityVerified", "Unknown", "GateRunning")
        pod.swap(forge(files, revision))
        report = await comes_to(prober, Phase.WATCHING)
        assert (report.verdict, report.reason) == (Verdict.PASS, "Passed")
        message = await tenant.until("credit", "QualityVerified", "False", "PassUnproven")
        assert "delete the pod" in message
        assert (await tenant.cr("credit"))["status"]["candidate"] == candidate
        assert read(await tenant.present("ControllerRevision", candidate)).verdicts == ()
        assert await tenant.selected() == serving

    sound = SoundEngine(load_suite(files["suite.json"], files["items.jsonl"]).items)
    async with monitor(tmp_path, revision, place.address, files, sound):
        await tenant.switched(candidate)
        await tenant.until("credit", "QualityVerified", "True", "GatePassed")


async def test_finding_01_a_gate_that_was_run_under_a_forged_configuration_is_not_taken(
    operator: OperatorProcess, tenant: Tenant, tmp_path: Path
) -> None:
    serving = await tenant.serve()
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048})
    candidate = await tenant.candidate("credit")
    revision = read(await tenant.present("ControllerRevision", candidate))
    place = Monitors()
    await tenant.run_pod(candidate, ready=True, monitors=place)
    files = (await tenant.present("ConfigMap", "credit-accuracy"))["data"]
    settings = json.loads(files[SETTINGS_FILE]) | {"threshold": 0.5}
    sound = SoundEngine(load_suite(files["suite.json"], files["items.jsonl"]).items)
    forged = {**files, SETTINGS_FILE: json.dumps(settings)}
    async with monitor(tmp_path, revision, place.address, forged, sound) as (_, prober):
        report = await comes_to(prober, Phase.WATCHING)
        assert report.ran_under
        await tenant.until("credit", "QualityVerified", "False", "PassUnproven")
        assert await tenant.selected() == serving
        assert report.ran_under not in (await tenant.cr("credit"))["status"]["accuracyConfigs"]
