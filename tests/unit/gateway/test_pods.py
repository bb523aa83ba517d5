"""How pods come and go: the name service, settings that change, evidence that ages."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from r1plus_contract.verdict import GateReport, MonitorReport, Phase, Verdict
from r1plus_gateway.access.caller import AnswerEvidence, RevisionFigures
from r1plus_gateway.serving.errors import ModelUnavailableError
from r1plus_gateway.serving.evidence import UNVERIFIED, EvidenceCache, match_report
from r1plus_gateway.serving.pods import PodPool, resolve_service
from r1plus_gateway.settings import ModelSettings, RevisionFacts
from support.gateway.access import ALICE
from support.gateway.fake_triton import Gated, answer
from support.gateway.rig import Rig, running
from support.tables import for_each
from support.waiting import eventually

MODEL = ModelSettings("credit", "credit-pods", context_tokens=1024, batch=4)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Names:
    """A name service."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = frozenset(addresses)
        self.trouble: OSError | None = None
        self.asked = asyncio.Event()

    async def __call__(self, host: str, port: int) -> frozenset[str]:
        self.asked.set()
        if self.trouble is not None:
            raise self.trouble
        return self.addresses


async def read_nothing(target: str) -> MonitorReport | None:
    return None


async def test_pods_follow_the_name_and_stay_while_nobody_answers() -> None:
    names = Names("127.0.0.1", "127.0.0.2")
    counts: list[int] = []
    pool = PodPool(MODEL, read_nothing, resolve=names, on_change=lambda model, pods: counts.append(pods))
    await pool.refresh()
    names.trouble = OSError("Temporary failure in name resolution")
    await pool.refresh()
    assert len(pool) == 2
    names.trouble, names.addresses = None, frozenset({"127.0.0.2"})
    await pool.refresh()
    assert pool.choose().address == "127.0.0.2"
    names.addresses = frozenset()
    await pool.refresh()
    with pytest.raises(ModelUnavailableError, match="no pod of credit is ready"):
        pool.choose()
    assert counts == [2, 1, 0]
    await pool.close()


async def test_a_pod_at_another_port_takes_over_without_a_moment_in_which_there_is_none() -> None:
    listed = replace(MODEL, addresses=("127.0.0.1",), grpc_port=9001, monitor_port=9002)
    counts: list[int] = []
    pool = PodPool(listed, read_nothing, on_change=lambda model, pods: counts.append(pods))
    await pool.refresh()
    before = pool.choose()
    with pool.occupy(before):
        pool.model = replace(listed, grpc_port=9003, monitor_port=9004)
        await pool.refresh()
        assert pool.choose() is not before
        assert not before.is_listed
    assert counts == [1, 1]
    await pool.close()


async def test_a_failure_resolves_at_once_and_the_pod_comes_last_for_a_while() -> None:
    names, clock = Names("127.0.0.1", "127.0.0.2"), Clock()
    pool = PodPool(MODEL, read_nothing, resolve=names, clock=clock)
    task = asyncio.create_task(pool.run())
    await names.asked.wait()
    await asyncio.sleep(0)
    names.asked.clear()
    pod = pool.choose()
    pool.report_failure(pod)
    await asyncio.wait_for(names.asked.wait(), 60)
    assert pool.choose() is not pod
    clock.now = 10.0
    assert pool.choose() is pod
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pool.close()


async def test_the_systems_resolver_knows_names_and_their_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "127.0.0.1" in await resolve_service("localhost", 80)
    # What a resolver says of a name that is not there; the test asks none, for a machine may have none.
    for said in (socket.EAI_NONAME, socket.EAI_NODATA):
        monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(said, "no such name")))
        assert await resolve_service("no-such-name.invalid", 80) == frozenset()
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(socket.EAI_AGAIN, "try again")))
    with pytest.raises(OSError, match="try again"):
        await resolve_service("no-such-name.invalid", 80)


async def test_evidence_is_read_again_after_two_seconds() -> None:
    clock, reads = Clock(), 0

    async def read(target: str) -> MonitorReport | None:
        nonlocal reads
        reads += 1
        return MonitorReport("credit-1", "1d", Phase.WATCHING, Verdict.PASS, "Passed", "")

    cache = EvidenceCache("10.0.0.1:8080", read, clock)
    revisions = [RevisionFacts("credit-1", "1d", "sha256:01")]
    assert await cache.get(revisions) == AnswerEvidence("credit-1", "sha256:01", "Pass")
    await asyncio.gather(*(cache.get(revisions) for _ in range(5)))
    assert reads == 1
    clock.now = 2.1
    assert await cache.get([]) is UNVERIFIED
    assert reads == 2
    await cache.close()


GATE = GateReport(Verdict.PASS, "Passed", "", "1d", "credit-v1", "", "1", threshold=0.98, items=210, lost=3, allowed=4)
GATES: dict[str, tuple[GateReport | None, RevisionFigures | None]] = {
    "a gate that passed": (GATE, RevisionFigures("credit-v1", 210, 3, 4)),
    "none yet": (None, None),
    "one that failed, while the pod says Pass": (replace(GATE, verdict=Verdict.FAIL), None),
    "a suite that would end the header": (replace(GATE, suite='a"\r\nx: y'), None),
    "a suite of one hundred thousand characters": (replace(GATE, suite="a" * 100_000), None),
    "more lost than asked": (replace(GATE, lost=211), None),
    "less than nothing lost": (replace(GATE, lost=-1), None),
    "items without end": (replace(GATE, items=10**9), None),
    "more lost than allowed, and yet a Pass": (replace(GATE, allowed=2), None),
}


@for_each("reported, expected", GATES)
def test_figures_of_a_gate_are_believed_if_they_can_be(
    reported: GateReport | None, expected: RevisionFigures | None
) -> None:
    report = MonitorReport("credit-1", "1d", Phase.WATCHING, Verdict.PASS, "Passed", "", gate=reported)
    assert match_report(report, [RevisionFacts("credit-1", "1d", "sha256:01")]).gate == expected


async def test_a_model_that_the_settings_add_or_drop_is_followed(tmp_path: Path) -> None:
    async with running(tmp_path, answer("a")) as rig:
        rig.model["name"] = "debit"
        rig.write_settings()
        rig.file.refresh()
        async with rig.chat() as response:
            assert response.status == 404
        pool = rig.gateway.models.find("debit", ALICE)
        assert pool is not None
        await pool.refresh()
        async with rig.chat(model="debit") as response:
            assert response.status == 200
        rig.model["contextTokens"] = 2048
        rig.write_settings()
        rig.file.refresh()
        assert rig.gateway.models.find("debit", ALICE) is pool
        assert pool.model.context_tokens == 2048


async def test_a_model_that_is_dropped_answers_what_runs_and_refuses_what_waits(tmp_path: Path) -> None:
    script = Gated(("a",))

    async def ask(rig: Rig) -> int:
        async with rig.chat() as response:
            return int(response.status)

    async with running(tmp_path, script, batch=1) as rig:
        running_one = asyncio.create_task(ask(rig))
        await rig.until_running(1)
        waiting_one = asyncio.create_task(ask(rig))
        await eventually(lambda: rig.gateway.models.queue.waiting == 1, "one waits")
        rig.model["name"] = "debit"
        rig.write_settings()
        rig.file.refresh()
        assert await asyncio.wait_for(waiting_one, 60) == 503
        script.release(2)
        assert await asyncio.wait_for(running_one, 60) == 200
        await rig.until_settled(2)
