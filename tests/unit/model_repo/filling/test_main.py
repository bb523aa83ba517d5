"""The Job's container as the kubelet runs it: exit code, termination message, progress."""

import hashlib
import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.delivery import digest_of
from r1plus_contract.filling import CA_FILE, ORDER_FILE, PROGRESS_PATH, Archive, FillOrder, FillPhase, FillProgress
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.filling import __main__ as program
from r1plus_model_repo.filling import addresses
from r1plus_model_repo.filling.progress import Board
from unit.model_repo.filling import builds
from unit.model_repo.filling.server import gives, serving, tar_of

FILES = {"engine/openvino_model.xml": b"<net/>", "engine/weights.bin": b"\1" * 100_000}


class Job:
    """Folders, order and arguments."""

    def __init__(self, root: Path) -> None:
        self.order, self.volume, self.log = root / "order", root / "volume", root / "log"
        self.order.mkdir()
        self.volume.mkdir()
        self.log.touch()
        original = root / "original"
        original.mkdir()
        for name, content in FILES.items():
            (original / Path(name).name).write_bytes(content)
        self.digest = digest_of(original)

    def tell(self, url: str, sha256: str, ca: str) -> None:
        archive = Archive(url, sha256)
        (self.order / ORDER_FILE).write_text(dumps(FillOrder("bank-lite", self.digest, 200_000, archive)))
        (self.order / CA_FILE).write_text(ca)

    def run(self, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
        folders = ["--order-dir", self.order, "--volume", self.volume, "--termination-log", self.log, "--port", 0]
        monkeypatch.setattr("sys.argv", ["filling", *map(str, folders)])
        return program.main(), self.log.read_text()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_an_archive_becomes_an_engine(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_forbidden", lambda _: "")
    body = tar_of(FILES, "w:gz")
    with serving(tmp_path) as server:
        server.answers["/e.tar"] = gives(body)
        job.tell(f"{server.url}/e.tar", hashlib.sha256(body).hexdigest(), server.ca)
        assert job.run(monkeypatch) == (0, "")
        assert digest_of(job.volume / "engine") == job.digest
        job.tell(f"{server.url}/e.tar", "b" * 64, server.ca)
        assert job.run(monkeypatch) == (0, ""), "what is there is not fetched again"
        assert server.asked == ["/e.tar"]


def test_another_archive_than_was_registered_is_refused(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same files, packed otherwise: the engine would be right, but it is not the file that was named."""
    monkeypatch.setattr(addresses, "_forbidden", lambda _: "")
    with serving(tmp_path) as server:
        server.answers["/e.tar"] = gives(tar_of(FILES, "w:gz"))
        job.tell(f"{server.url}/e.tar", hashlib.sha256(tar_of(FILES)).hexdigest(), server.ca)
        code, said = job.run(monkeypatch)
    assert code == 2
    assert said.startswith("EngineDigestMismatch: the archive's sha256 is ")
    assert not (job.volume / "engine").exists()


def test_an_address_that_nothing_is_fetched_from(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.tell("https://localhost/e.tar", "a" * 64, "")
    code, said = job.run(monkeypatch)
    assert (code, said.partition(":")[0]) == (2, "FetchRefused")


def test_an_order_that_cannot_be_read(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = job.run(monkeypatch)
    assert (code, ORDER_FILE in said) == (1, True)
    (job.order / ORDER_FILE).write_text("{")
    assert job.run(monkeypatch)[0] == 1


class Pod:
    """The containers `fetch` and `fill` of a Job that builds, in one process of each kind."""

    def __init__(self, root: Path) -> None:
        self.job, self.orders, self.log = builds.Job(root), root / "order", root / "log"
        self.orders.mkdir()
        (self.orders / ORDER_FILE).write_text(dumps(self.job.order))

    def run(self, monkeypatch: pytest.MonkeyPatch, stage: str) -> tuple[int, str]:
        self.log.write_text("")
        folders = ["--order-dir", self.orders, "--volume", self.job.volume, "--termination-log", self.log, "--port", 0]
        monkeypatch.setattr("sys.argv", ["filling", *map(str, folders), "--stage", stage])
        return program.main(), self.log.read_text()


def test_a_checkpoint_becomes_an_engine_by_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pod = Pod(tmp_path)
    monkeypatch.setenv("HOSTNAME", builds.HOST)
    pod.job.copy()
    assert pod.run(monkeypatch, "fetch") == (0, "")
    assert "Engine bank-full can be built" in capsys.readouterr().out
    code, said = pod.run(monkeypatch, "seal")
    assert (code, said.partition(":")[0]) == (1, "BuildFailed")
    assert pod.job.build().returncode == 0
    assert pod.run(monkeypatch, "seal") == (0, "")
    assert "Engine bank-full is on the volume, built for its GPU" in capsys.readouterr().out
    assert pod.job.files() == builds.WHOLE
    pod.job.copy()
    assert pod.run(monkeypatch, "fetch") == (0, "")
    assert "Engine bank-full is on the volume" in capsys.readouterr().out


def test_a_pod_without_the_variable_is_known_by_its_hostname(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod(tmp_path)
    monkeypatch.delenv("HOSTNAME", raising=False)
    pod.job.copy()
    pod.run(monkeypatch, "fetch")
    assert pod.job.build(host="").returncode == 0
    assert pod.run(monkeypatch, "seal") == (0, "")


def test_a_stage_that_is_not_the_orders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod(tmp_path)
    code, said = pod.run(monkeypatch, "all")
    assert (code, "runs the stages fetch and seal, not all" in said) == (2, True)
    (pod.orders / ORDER_FILE).write_text(dumps(replace(pod.job.order, build=None)))
    for stage in ("fetch", "seal"):
        code, said = pod.run(monkeypatch, stage)
        assert (code, "runs the stage all, not fetch and seal" in said) == (2, True)


def test_whoever_asks_is_told_how_far_it_is() -> None:
    board = Board()
    server = board.serve(0, "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}{PROGRESS_PATH}"
    board.tell(FillProgress(FillPhase.FETCHING, 40, 100))
    with urllib.request.urlopen(url) as response:
        assert json.load(response) == {"phase": "Fetching", "done": 40, "total": 100}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/other")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("done", "total", "percent"), [(0, 0, None), (5, 0, None), (0, 10, 0), (5, 10, 50), (11, 10, 100)]
)
def test_percent(done: int, total: int, percent: int | None) -> None:
    assert FillProgress(FillPhase.FETCHING, done, total).percent == percent
