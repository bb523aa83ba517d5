"""A student of SmolLM2 from its teacher to traffic: refused by its gate, trained on, passed, served on one machine.

The containers of the Job run here as functions on a folder; `r1plus serve` and Triton are the real ones.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from r1plus_contract.delivery import digest_folder
from r1plus_contract.engine_fetch import DistillationOptions, FillPhase
from r1plus_edge.report import ServePhase
from r1plus_model_repo import built_engine
from r1plus_model_repo.importing import smollm2
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.source import fetch_weights
from support.edge.engines import SHIPPED
from support.edge.served import Served
from support.edge.suites import write_part
from support.model.training_volume import TrainingVolume
from support.paths import TESTS
from support.waiting import wait_until

pytestmark = [pytest.mark.distillation, pytest.mark.timeout(3000)]
LAYERS = 30
"""Of the teacher."""
DEPLOYMENT = """
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {name: edge, namespace: team-shop}
spec:
  tier: edge
  engine: {family: bank}
  batching: {maxBatchSize: 4}
  context: {maxTokens: 512}
  accuracy: {threshold: 0.9, probesPerMinute: 60}
"""
CUT = DistillationOptions(
    layers=12,
    temperature=3.0,
    hard_weight=0.0,
    steps=1,
    batch=2,
    length=48,
    learning_rate=1e-6,
    top=64,
    training_precision="float32",
    seed=0,
    backend="openvino",
    precision="Q8_0",
)
"""Twelve of thirty layers and one step: a student that knows little."""
WHOLE = replace(CUT, layers=None, steps=4)
"""A student of all layers, trained for longer: it still knows what its teacher does."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of both recipes: teacher, data that no suite has, and a student of all layers."""
    folder = tmp_path_factory.mktemp("story")
    weights = fetch_weights(smollm2.WEIGHTS, folder, print)
    convert_gguf_to_checkpoint(weights, folder / "artifact" / "teacher", "F16", print)
    shutil.copytree(folder / "artifact" / "teacher", folder / "artifact" / "student", copy_function=os.link)
    paragraphs = (TESTS.parent / "docs" / "isolation.md").read_text().split("\n\n")
    texts = [one for one in paragraphs if len(one) > 200][:24]
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "artifact" / "data.jsonl").write_text(data)
    return folder / "artifact"


def train(artifact: Path, root: Path, options: DistillationOptions) -> TrainingVolume:
    """Let the Job's containers make the engine of a recipe."""
    volume = TrainingVolume(root, options, save_seconds=1e9)
    root.mkdir()
    shutil.copytree(artifact, root / "artifact", copy_function=os.link)
    progress = volume.run()
    print(*(one for one in progress if one.phase is FillPhase.TRAINING), sep="\n")
    return volume


def write_catalog(volume: TrainingVolume, folder: Path, name: str, version: str, layers: int) -> Path:
    """Write the R1PlusEngine of what was made; return the catalog's folder."""
    documents = yaml.safe_load_all(SHIPPED.read_text())
    engine = next(one for one in documents if one["metadata"]["name"] == "smollm2-lite-q8-0")
    engine["metadata"]["name"] = name
    engine["spec"] |= {"family": "bank", "tier": "edge", "version": version}
    engine["spec"]["architecture"]["layers"] = layers
    engine["spec"]["artifact"]["sha256"] = digest_folder(volume.engine)
    engine["spec"]["reference"] = {"suite": "bank-v1", "claimedBy": "trained here"}
    folder.mkdir()
    (folder / "engines.yaml").write_text(yaml.safe_dump(engine))
    return folder


@contextmanager
def serving(volume: TrainingVolume, root: Path, name: str, layers: int) -> Iterator[Served]:
    """Have `r1plus serve` take the engine, with a suite of its own."""
    root.mkdir()
    catalog = write_catalog(volume, root / "catalog", name, "1.0.0", layers)
    served = Served(root, write_part(root / "bank-v1"), DEPLOYMENT)
    served.start("--engine", str(volume.engine), "--catalog", str(catalog))
    try:
        yield served
    finally:
        served.end()


def test_a_student_is_refused_trained_on_and_serves(artifact: Path, tmp_path: Path) -> None:
    weak = train(artifact, tmp_path / "weak", CUT)
    with serving(weak, tmp_path / "refused", "bank-edge-12", CUT.layers or 0) as served:
        served.until(ServePhase.REFUSED)
        print(served.output)
        assert "GateFailed" in served.output
        wait_until(served.folder.key.exists, "its gateway has a key", evidence=lambda: served.evidence)
        assert served.ask().status_code == 404, "no request reaches a student that its gate refused"

    strong = train(artifact, tmp_path / "strong", WHOLE)
    records = [built_engine.read_built(volume.engine) for volume in (weak, strong)]
    assert records[0] and records[1] and records[0].key != records[1].key, "more steps are another engine"
    with serving(strong, tmp_path / "served", "bank-edge-30", LAYERS) as served:
        served.until(ServePhase.SERVING)
        response = served.ask()
        print(served.output, response.text)
        assert (response.status_code, response.headers["x-r1plus-verdict"]) == (200, "Pass")
        assert "Stockholm" in response.text
