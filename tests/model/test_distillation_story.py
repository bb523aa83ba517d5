"""Students from their teachers to traffic on one machine: refused by the gate with figures; trained, and served.

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

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import DistillationOptions, FillPhase
from r1plus_edge.report import ServePhase
from r1plus_model_repo.importing import smollm2
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from r1plus_model_repo.importing.source import fetch_weights
from support.edge.engines import SHIPPED
from support.edge.served import Served
from support.edge.suites import write_part
from support.golden_suites import files_of
from support.model.forms import split_questions, write_forms
from support.model.training_volume import OPTIONS, TrainingVolume
from support.paths import TESTS
from support.waiting import wait_until

pytestmark = [pytest.mark.distillation, pytest.mark.timeout(3000)]
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
CUT = replace(OPTIONS, layers=12, steps=1, batch=2, learning_rate=1e-6, top=64, backend="openvino", precision="Q8_0")
"""Twelve of thirty layers and one step: a student that knows little."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact: a teacher, and data that no suite has."""
    folder = tmp_path_factory.mktemp("story")
    weights = fetch_weights(smollm2.WEIGHTS, folder, print)
    convert_gguf_to_checkpoint(weights, folder / "artifact" / "teacher", "F16", print)
    paragraphs = (TESTS.parent / "docs" / "reference" / "accuracy.md").read_text().split("\n\n")
    texts = [one for one in paragraphs if len(one) > 200][:24]
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "artifact" / "data.jsonl").write_text(data)
    return folder / "artifact"


def train(artifact: Path, root: Path, options: DistillationOptions, suite: Path | None = None) -> TrainingVolume:
    """Let the Job's containers make the engine of a recipe. `suite`: whose questions must not be in the data."""
    volume = TrainingVolume(root, options, save_seconds=1e9)
    root.mkdir()
    if suite is not None:
        shutil.copytree(suite, root / "suite")
    shutil.copytree(artifact, root / "artifact", copy_function=os.link)
    progress = volume.run()
    print(*(one for one in progress if one.phase is FillPhase.TRAINING), sep="\n")
    return volume


def write_catalog(volume: TrainingVolume, folder: Path, name: str) -> Path:
    """Write the R1PlusEngine of what was made; return the catalog's folder."""
    documents = yaml.safe_load_all(SHIPPED.read_text())
    engine = next(one for one in documents if one["metadata"]["name"] == "smollm2-lite-q8-0")
    facts = json.loads((volume.engine / "engine.json").read_text())
    engine["metadata"]["name"] = name
    engine["spec"] |= {"family": "bank", "tier": "edge", "precision": facts["precision"]}
    engine["spec"]["architecture"] = facts["architecture"]
    engine["spec"]["artifact"]["sha256"] = digest_folder(volume.engine)
    engine["spec"]["reference"] = {"suite": "bank-v1", "claimedBy": "trained here"}
    folder.mkdir()
    (folder / "engines.yaml").write_text(yaml.safe_dump(engine))
    return folder


@contextmanager
def serving(volume: TrainingVolume, root: Path, name: str, suite: Path) -> Iterator[Served]:
    """Have `r1plus serve` take the engine, with a suite of its own."""
    root.mkdir()
    catalog = write_catalog(volume, root / "catalog", name)
    served = Served(root, suite, DEPLOYMENT)
    served.start("--engine", str(volume.engine), "--catalog", str(catalog))
    try:
        yield served
    finally:
        served.end()


def expect_refusal(served: Served) -> None:
    """Wait for the gate's refusal, with its figures."""
    served.until(ServePhase.REFUSED)
    print(served.output)
    assert "GateFailed" in served.output and " of 32 items, 3 allowed at threshold 0.9" in served.output
    wait_until(served.folder.key.exists, "its gateway has a key", evidence=lambda: served.evidence)
    assert served.ask().status_code == 404, "no request reaches a student that its gate refused"


def test_a_student_that_lost_too_much_is_refused_with_figures(artifact: Path, tmp_path: Path) -> None:
    weak = train(artifact, tmp_path / "weak", CUT)
    with serving(weak, tmp_path / "refused", "bank-edge-12", write_part(tmp_path / "bank-v1")) as served:
        expect_refusal(served)


LEARN = replace(CUT, layers=1, steps=80, batch=16, learning_rate=3e-3, top=16, precision="FP16")
"""One of four layers, and enough steps to learn what the teacher knows."""


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a teacher that knows the forms, trained from random weights, and next to it the suite."""
    folder = tmp_path_factory.mktemp("forms")
    write_forms(folder / "artifact", folder)
    (folder / "bank-v1").mkdir()
    for name, text in files_of(split_questions()[1]).texts().items():
        (folder / "bank-v1" / name).write_text(text)
    return folder


def test_a_student_is_refused_then_trained_then_serves(forms: Path, tmp_path: Path) -> None:
    suite = forms / "bank-v1"
    weak = train(forms / "artifact", tmp_path / "weak", replace(LEARN, steps=1), suite)
    with serving(weak, tmp_path / "refused", "bank-edge-1", suite) as served:
        expect_refusal(served)
    trained = train(forms / "artifact", tmp_path / "trained", LEARN, suite)
    with serving(trained, tmp_path / "serves", "bank-edge-80", suite) as served:
        served.until(ServePhase.SERVING)
        print(served.output)
        for item in split_questions()[1][:3]:
            answer = served.ask(item.prompt).json()["choices"][0]["message"]["content"]
            assert (item.prompt, answer) == (item.prompt, item.answers[0])
