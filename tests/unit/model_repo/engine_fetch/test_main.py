"""The Job's container as the kubelet runs it: exit code, termination message, progress."""

import hashlib
import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import (
    CA_FILE,
    ORDER_FILE,
    PROGRESS_PATH,
    Archive,
    FillOrder,
    FillPhase,
    FillProgress,
)
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.engine_fetch import __main__ as program
from r1plus_model_repo.engine_fetch import addresses
from r1plus_model_repo.engine_fetch.progress import ProgressServer
from support.model_repo.engine_fetch import builds
from support.model_repo.engine_fetch.server import gives, serving, tar_of

FILES = {"engine/openvino_model.xml": b"<net/>", "engine/weights.bin": b"\1" * 100_000}


class Pod:
    """A Job's containers that run our program, in this process: folders, order and arguments."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.orders, self.volume, self.log = root / "order", root / "volume", root / "log"
        self.monkeypatch = monkeypatch
        self.orders.mkdir()

    def tell(self, order: FillOrder, ca: str | None = None) -> None:
        (self.orders / ORDER_FILE).write_text(dumps(order))
        if ca is not None:
            (self.orders / CA_FILE).write_text(ca)

    def run(self, stage: str = "") -> tuple[int, str]:
        self.log.write_text("")
        folders = ["--order-dir", self.orders, "--volume", self.volume, "--termination-log", self.log, "--port", 0]
        stages = ["--stage", stage] if stage else []
        self.monkeypatch.setattr("sys.argv", ["filling", *map(str, folders), *stages])
        return program.main(), self.log.read_text()


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    pod = Pod(tmp_path, monkeypatch)
    pod.volume.mkdir()
    return pod


@pytest.fixture
def digest(tmp_path: Path) -> str:
    return digest_folder(builds.write(tmp_path / "original", FILES) / "engine")


def order(digest: str, url: str, sha256: str) -> FillOrder:
    return FillOrder("bank-lite", digest, 200_000, Archive(url, sha256))


def test_an_archive_becomes_an_engine(pod: Pod, digest: str) -> None:
    pod.monkeypatch.setattr(addresses, "_explain_refusal", lambda _: "")
    body = tar_of(FILES, "w:gz")
    with serving() as server:
        server.answers["/e.tar"] = gives(body)
        pod.tell(order(digest, f"{server.url}/e.tar", hashlib.sha256(body).hexdigest()), server.ca)
        assert pod.run() == (0, "")
        assert digest_folder(pod.volume / "engine") == digest
        pod.tell(order(digest, f"{server.url}/e.tar", "b" * 64), server.ca)
        assert pod.run() == (0, ""), "what is there is not fetched again"
        assert server.asked == ["/e.tar"]


def test_another_archive_than_was_registered_is_refused(pod: Pod, digest: str) -> None:
    """Same files, packed otherwise: the engine would be right, but it is not the file that was named."""
    pod.monkeypatch.setattr(addresses, "_explain_refusal", lambda _: "")
    with serving() as server:
        server.answers["/e.tar"] = gives(tar_of(FILES, "w:gz"))
        pod.tell(order(digest, f"{server.url}/e.tar", hashlib.sha256(tar_of(FILES)).hexdigest()), server.ca)
        code, said = pod.run()
    assert code == 2
    assert said.startswith("EngineDigestMismatch: the archive is not the one that was registered: its sha256 is ")
    assert not (pod.volume / "engine").exists()


def test_an_address_that_nothing_is_fetched_from(pod: Pod, digest: str) -> None:
    pod.tell(order(digest, "https://localhost/e.tar", "a" * 64), "")
    code, said = pod.run()
    assert (code, said.partition(":")[0]) == (2, "FetchRefused")


def test_an_order_that_cannot_be_read(pod: Pod) -> None:
    code, said = pod.run()
    assert (code, ORDER_FILE in said) == (1, True)
    (pod.orders / ORDER_FILE).write_text("{")
    assert pod.run()[0] == 1


class BuildingPod(Pod):
    """One whose Job builds."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        self.job = builds.Job(root)
        self.tell(self.job.order)


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildingPod:
    return BuildingPod(tmp_path, monkeypatch)


def test_a_checkpoint_becomes_an_engine_by_stages(building: BuildingPod, capsys: pytest.CaptureFixture[str]) -> None:
    job = building.job
    building.monkeypatch.setenv("HOSTNAME", builds.HOST)
    job.copy()
    assert building.run("fetch") == (0, "")
    assert "Engine bank-full can be built" in capsys.readouterr().out
    code, said = building.run("seal")
    assert (code, said.partition(":")[0]) == (1, "BuildFailed")
    assert job.build().returncode == 0
    assert building.run("seal") == (0, "")
    assert "Engine bank-full is on the volume, built for its GPU" in capsys.readouterr().out
    assert job.files() == builds.WHOLE
    job.copy()
    assert building.run("fetch") == (0, "")
    assert "Engine bank-full is on the volume" in capsys.readouterr().out


def test_a_pod_without_the_variable_is_known_by_its_hostname(building: BuildingPod) -> None:
    building.monkeypatch.delenv("HOSTNAME", raising=False)
    building.job.copy()
    building.run("fetch")
    assert building.job.build(host="").returncode == 0
    assert building.run("seal") == (0, "")


def test_a_stage_that_is_not_the_orders_is_refused(building: BuildingPod) -> None:
    code, said = building.run("all")
    assert (code, "run the stages fetch and seal, not all" in said) == (2, True)
    building.tell(replace(building.job.order, build=None))
    for stage in ("fetch", "seal"):
        code, said = building.run(stage)
        assert (code, "run the stage all, not fetch and seal" in said) == (2, True)


def test_whoever_asks_is_told_how_far_it_is() -> None:
    board = ProgressServer()
    server = board.serve(0, "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}{PROGRESS_PATH}"
    board.update(FillProgress(FillPhase.FETCHING, 40, 100))
    with urllib.request.urlopen(url) as response:
        told = {"phase": "Fetching", "done": 40, "total": 100, "loss": None, "secondsLeft": None}
        assert json.load(response) == told
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/other")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("done", "total", "percent"), [(0, 0, None), (5, 0, None), (0, 10, 0), (5, 10, 50), (11, 10, 100)]
)
def test_percent(done: int, total: int, percent: int | None) -> None:
    assert FillProgress(FillPhase.FETCHING, done, total).percent == percent
