"""An engine of the backend torch on one machine: imported, gated by its suite, served; one that was not healed is not.

The real Triton and `r1plus serve`, where torch is installed beside r1plus.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1plus_cli.local import SHIPPED_SUITES
from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_contract.names import CONTAINER_TRITON
from r1plus_edge.pods.processes import find_processes
from r1plus_model.checkpoint import load_model, save_model
from support.edge.served import Served, calling, read_command, read_objects
from support.edge.suites import write_part
from support.model import environment
from support.model.engine import import_checkpoint
from support.vllm.engine import convert_smollm2

pytestmark = [pytest.mark.model, pytest.mark.timeout(3600)]
SUITE = SHIPPED_SUITES / "smollm2-full-v1"
"""Of the numbers that the checkpoint has."""
UNHEALED = LlamaArchitecture(window=128, sinks=4, global_every=6, relative_bias=True, active=0.15)
DEPLOYMENT = """
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {name: edge, namespace: team-shop}
spec:
  tier: edge
  engine: {family: r1}
  batching: {maxBatchSize: 2}
  context: {maxTokens: 512}
  accuracy: {suite: part-v1, probesPerMinute: 6}
"""


@dataclass(frozen=True)
class Engines:
    """Folders of `r1plus engine import`: options off, and all of R1+ without training."""

    plain: Path
    unhealed: Path

    @property
    def catalog(self) -> Path:
        """The folder with the R1PlusEngine of both."""
        return self.plain.parent / "catalog"


def import_into_catalog(checkpoint: Path, name: str, version: str, out: Path) -> Path:
    """Import it, and put its R1PlusEngine into the catalog; return its folder."""
    folder = import_checkpoint(checkpoint, name, "part-v1", out, "--version", version, "--cpu", "1")
    (out / "catalog").mkdir(exist_ok=True)
    (out / "catalog" / f"{name}.yaml").write_text((folder / "engine.yaml").read_text())
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    root = tmp_path_factory.mktemp("engines")
    checkpoint = convert_smollm2(root / "smollm2")
    save_model(load_model(checkpoint, UNHEALED), root / "unhealed", checkpoint)
    return Engines(
        import_into_catalog(checkpoint, "r1-plain", "1.0.0", root / "out"),
        import_into_catalog(root / "unhealed", "r1-unhealed", "1.0.1", root / "out"),
    )


@pytest.fixture(scope="module")
def served(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    program = environment.write_python(tmp_path_factory.mktemp("python")).with_name("r1plus")
    suite = write_part(tmp_path_factory.mktemp("suites") / "part-v1", whole=SUITE)
    one = Served(tmp_path_factory.mktemp("serve"), suite, DEPLOYMENT, program=program)
    one.start("--engine", str(engines.plain / "engine"), "--catalog", str(engines.catalog))
    try:
        one.until_announced()
        yield one
    finally:
        one.end()


def test_an_engine_with_all_options_off_passes_its_suite_and_answers(served: Served) -> None:
    response = served.ask()
    assert "Stockholm" in response.text
    assert response.headers["x-r1plus-verdict"] == "Pass"
    assert served.status.verdict == "Pass"


def test_it_holds_no_more_memory_than_was_predicted(served: Served) -> None:
    """The prediction is the limit of the container: the plan asks for the sum of the fit."""
    (revision,) = read_objects(served.folder, "ControllerRevision")
    containers = revision["data"]["template"]["spec"]["containers"]
    triton = next(one for one in containers if one["name"] == CONTAINER_TRITON)
    limit = int(triton["resources"]["limits"]["memory"].removesuffix("Mi"))
    processes = [pid for pid in find_processes(served.folder.root) if "triton" in read_command(pid)]
    peak = sum(read_peak_kibibytes(pid) for pid in processes) / 1024
    print(f"MiB: limit {limit}, held at most {peak:.0f}")
    assert 540 < peak < limit


def read_peak_kibibytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def test_one_that_was_not_healed_fails_its_gate_and_the_other_serves_on(served: Served, engines: Engines) -> None:
    options = json.loads((engines.unhealed / "engine" / "config.json").read_text())["r1plus"]
    assert (options["window"], options["active"]) == (128, 0.15)
    before = served.status.revision
    with calling(served) as caller:
        update = served.call("update", str(engines.unhealed / "engine"), "--catalog", str(engines.catalog))
    assert update.returncode == 1, update.stdout + update.stderr
    assert f"Fail, taken back, {before} " in update.stdout
    assert caller.failures == []
    assert caller.revisions == [before]
