"""The init container `verify`, run as a pod runs it: in a process of its own, on folders."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import BuildRecord
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_model_repo import built_engine
from support.model_repo.engine_fetch.builds import RECIPE, Job, write
from support.model_repo.exports import states

CONFIG = 'name: "r1plus"\n'
PARAMETER = 'parameters {{\n  key: "{name}"\n  value {{\n    string_value: "{value}"\n  }}\n}}\n'


class Pod:
    """The folders that the container sees."""

    def __init__(self, root: Path) -> None:
        self.revision, self.delivery, self.log = root / "revision", root / "delivery", root / "termination-log"
        self.engine = self.delivery / "engine"
        self.engine.mkdir(parents=True)
        self.revision.mkdir()
        self.log.touch()
        (self.engine / "openvino_model.xml").write_text("<net/>")
        (self.engine / "openvino_model.bin").write_bytes(b"\x00" * 100)
        self.identity = ServingIdentity(
            engine="smollm2-full-f16",
            engine_digest=digest_folder(self.engine),
            config_digest=hashlib.sha256(CONFIG.encode()).hexdigest(),
            triton_image="triton:1",
            batch=16,
            context=2048,
        )
        (self.revision / "config.pbtxt").write_text(CONFIG)
        self.write()

    def write(self, **changes: str) -> None:
        (self.revision / "identity.json").write_text(dumps(replace(self.identity, **changes)))

    def run(self) -> tuple[int, str]:
        folders = ["--revision-dir", self.revision, "--delivery-dir", self.delivery, "--termination-log", self.log]
        # As in a pod: root too writes only where a folder's mode lets its owner.
        user = ["setpriv", "--bounding-set", "-all"] if os.geteuid() == 0 else []
        command = [*user, sys.executable, "-m", "r1plus_model_repo.delivery", *map(str, folders)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stderr

    def refuse(self) -> str:
        """Run it, which must fail, say the same in both places and lay out nothing; return what it says."""
        code, stderr = self.run()
        assert code == 1
        assert self.log.read_text() == stderr.strip()
        assert not (self.delivery / "models").exists()
        return stderr

    def configure(self, **parameters: str) -> None:
        """A configuration with these parameters, as the operator renders them."""
        text = CONFIG + "".join(PARAMETER.format(name=name, value=value) for name, value in parameters.items())
        (self.revision / "config.pbtxt").write_text(text)
        self.identity = replace(self.identity, config_digest=hashlib.sha256(text.encode()).hexdigest())
        self.write()

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.delivery).as_posix() for p in self.delivery.rglob("*") if p.is_file())


Change = Callable[[Pod], object]


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


ASSEMBLED = [
    "engine/openvino_model.bin",
    "engine/openvino_model.xml",
    "models/r1plus/1/model.py",
    "models/r1plus/config.pbtxt",
]


def test_the_promised_engine_is_laid_out_for_triton(pod: Pod) -> None:
    assert pod.run() == (0, "")
    assert pod.files() == ASSEMBLED
    assert (pod.delivery / "models/r1plus/config.pbtxt").read_text() == CONFIG
    assert pod.log.read_text() == ""


def test_a_rerun_does_the_same_and_clears_what_a_killed_run_left(pod: Pod) -> None:
    pod.run()
    (pod.delivery / ".models.part" / "r1plus").mkdir(parents=True)
    (pod.delivery / "models" / "stray").mkdir()
    assert pod.run() == (0, "")
    assert pod.files() == ASSEMBLED
    assert not (pod.delivery / "models" / "stray").exists(), "Triton would take it for a model"


def plant(folder: Path) -> None:
    """Write a model of somebody else's, and a second version of the genuine one, for Triton to load."""
    for version in ("other/1", "r1plus/2"):
        (folder / version).mkdir(parents=True)
        (folder / version / "model.py").write_text("import os\n")
    (folder / "other" / "config.pbtxt").write_text('name: "other"\n')


def planted_behind_a_link(pod: Pod) -> None:
    plant(pod.delivery / "planted")
    (pod.delivery / ".models.part").symlink_to("planted")


def planted_as_the_repository(pod: Pod) -> None:
    plant(pod.delivery / "planted")
    (pod.delivery / "models").symlink_to("planted")


def planted_as_a_file(pod: Pod) -> None:
    (pod.delivery / ".models.part").write_text("")


def planted_beyond_removal(pod: Pod) -> None:
    plant(pod.delivery / ".models.part")
    (pod.delivery / ".models.part" / "other").chmod(0o500)


PLANTED: dict[str, tuple[Change, int]] = {
    "a link in place of the folder that becomes the repository": (planted_behind_a_link, 0),
    "a link in place of the repository": (planted_as_the_repository, 0),
    "a file in place of the folder": (planted_as_a_file, 0),
    "a model in a folder that cannot be emptied": (planted_beyond_removal, 1),
}


@pytest.mark.parametrize("change, code", PLANTED.values(), ids=PLANTED.keys())
def test_what_the_engines_image_leaves_next_to_the_engine_is_never_loaded(pod: Pod, change: Change, code: int) -> None:
    change(pod)
    ended, stderr = pod.run()
    assert ended == code, stderr
    models = pod.delivery / "models"
    if code:
        assert "EngineInvalid: engine smollm2-full-f16: the model repository cannot be assembled" in stderr
        assert not models.exists()
        return
    assert not models.is_symlink()
    assert sorted(p.relative_to(models).as_posix() for p in models.rglob("*")) == [
        "r1plus",
        "r1plus/1",
        "r1plus/1/model.py",
        "r1plus/config.pbtxt",
    ]


def flipped(pod: Pod) -> None:
    (pod.engine / "openvino_model.bin").write_bytes(b"\x01" + b"\x00" * 99)


def added(pod: Pod) -> None:
    (pod.engine / "more").write_text("")


def linked(pod: Pod) -> None:
    (pod.engine / "passwd").symlink_to("/etc/passwd")


def shaped(pod: Pod, claim: int, *, layers: int = 2, shape: str = "?,3,?,64") -> str:
    """A pod whose engine has that shape, and whose configuration was made for `claim` bytes per token."""
    (pod.engine / "openvino_model.xml").write_text(f"<net>{''.join(states(layers, shape))}</net>")
    pod.configure(kv_bytes_per_token=str(claim))
    pod.write(engine_digest=digest_folder(pod.engine))
    return pod.run()[1]


PER_TOKEN = 2 * 2 * 3 * 64 * 2


def test_an_engine_of_the_shape_that_its_entry_claims_is_served(pod: Pod) -> None:
    assert shaped(pod, PER_TOKEN) == ""


@pytest.mark.parametrize("claim", [PER_TOKEN - 1, PER_TOKEN + 1, PER_TOKEN // 3])
def test_an_entry_that_claims_another_architecture_than_its_files_have_is_refused(pod: Pod, claim: int) -> None:
    told = shaped(pod, claim)
    assert (
        "ArchitectureMismatch: engine smollm2-full-f16: layers, kvHeads and headSize in spec.architecture do not match"
        f" the files: {claim} bytes" in told
    )
    assert f"the files need {PER_TOKEN}: layers 2, kvHeads 3, headSize 64; correct the R1PlusEngine" in told
    assert not (pod.delivery / "models").exists()
    assert "ArchitectureMismatch" in pod.log.read_text()


UNTOLD = {
    "no state": {"layers": 0},
    "a shape that is none": {"shape": "?,?,?,64"},
    "five dimensions": {"shape": "?,3,?,64,1"},
}


@pytest.mark.parametrize("form", UNTOLD.values(), ids=UNTOLD.keys())
def test_files_that_tell_no_shape_contradict_nothing(pod: Pod, form: dict[str, Any]) -> None:
    assert shaped(pod, 1, **form) == ""


FAULTS: dict[str, tuple[Change, str]] = {
    "a flipped bit": (
        flipped,
        "EngineDigestMismatch: engine smollm2-full-f16: these are not the files that were measured",
    ),
    "a renamed file": (
        lambda pod: (pod.engine / "openvino_model.bin").rename(pod.engine / "other.bin"),
        "EngineDigestMismatch",
    ),
    "a file too many": (added, "EngineDigestMismatch"),
    "a link": (linked, "EngineInvalid: engine smollm2-full-f16: passwd: an engine may hold plain files only"),
    "a link as the engine's folder": (
        lambda pod: (pod.engine.rename(pod.delivery / "elsewhere"), pod.engine.symlink_to("elsewhere")),
        "EngineInvalid: engine smollm2-full-f16: the folder itself is a link",
    ),
    "no files": (lambda pod: [path.unlink() for path in pod.engine.iterdir()], "EngineMissing"),
    "another configuration": (
        lambda pod: (pod.revision / "config.pbtxt").write_text(CONFIG + "max_batch_size: 3\n"),
        "ConfigDigestMismatch: config.pbtxt",
    ),
    "an identity of another version": (
        lambda pod: (pod.revision / "identity.json").write_text('{"engines": 1}'),
        "RevisionUnreadable: ServingIdentity.engines: unknown field",
    ),
    "no identity": (lambda pod: (pod.revision / "identity.json").unlink(), "RevisionUnreadable"),
}


@pytest.mark.parametrize("break_it, message", FAULTS.values(), ids=FAULTS.keys())
def test_what_was_not_promised_is_not_served_and_the_pod_says_why(pod: Pod, break_it: Change, message: str) -> None:
    break_it(pod)
    assert message in pod.refuse()


def test_the_message_has_both_digests_and_a_remedy(pod: Pod) -> None:
    pod.write(engine_digest="a" * 64)
    _, stderr = pod.run()
    assert f"sha256 is {pod.identity.engine_digest}, the catalog has {'a' * 64}" in stderr
    assert "deliver the right files" in stderr


def test_without_a_termination_log_the_message_is_still_on_stderr(pod: Pod) -> None:
    pod.log.unlink()
    flipped(pod)
    code, stderr = pod.run()
    assert (code, pod.log.exists()) == (1, False)
    assert "EngineDigestMismatch" in stderr


KEY, SOURCE = RECIPE.key, "5" * 64


@pytest.fixture
def built_pod(pod: Pod) -> Pod:
    """One whose engine was built for its GPU."""
    shutil.rmtree(pod.engine)
    write(pod.engine, {"plan/rank0.engine": b"\1" * 100, "tokenizer/tokenizer.json": b"{}"})
    sealed(pod)
    pod.identity = replace(pod.identity, engine_digest=SOURCE, gpu_product="NVIDIA-A10")
    pod.configure(backend="tensorrtllm", built=KEY)
    return pod


def sealed(pod: Pod, key: str = KEY, source: str = SOURCE, gpu_product: str = "NVIDIA-A10") -> None:
    built_engine.write_built(
        pod.engine, BuildRecord(key, source, gpu_product, built_engine.compute_files_digest(pod.engine))
    )


def test_an_engine_that_was_built_for_the_revision_is_served(built_pod: Pod) -> None:
    assert built_pod.run() == (0, "")
    assert (built_pod.delivery / "models/r1plus/1/model.py").is_file()


def never_built(pod: Pod) -> None:
    shutil.rmtree(pod.engine)
    pod.engine.mkdir()


def with_another_key(pod: Pod) -> None:
    config = pod.revision / "config.pbtxt"
    config.write_text(config.read_text().replace(KEY, "6" * 64))


UNBUILT: dict[str, tuple[Change, str]] = {
    "another GPU": (
        lambda pod: sealed(pod, gpu_product="NVIDIA-L4"),
        (
            "EngineIncompatible: engine smollm2-full-f16 was built for NVIDIA-L4, this revision needs"
            " NVIDIA-A10: an engine runs"
            " only on the GPU it was built for; its Job builds it again"
        ),
    ),
    "another recipe": (
        lambda pod: sealed(pod, key="6" * 64),
        (
            f"EngineIncompatible: engine smollm2-full-f16 was built for NVIDIA-A10 by recipe {'6' * 64}, this"
            " revision needs"
            f" {KEY}: batch, lengths or runtime differ; its Job builds it again"
        ),
    ),
    "another checkpoint": (
        lambda pod: sealed(pod, source="7" * 64),
        (
            f"EngineDigestMismatch: engine smollm2-full-f16 was built from files with sha256 {'7' * 64}, the"
            " catalog has"
            f" {SOURCE}; its Job builds it again"
        ),
    ),
    "another plan": (
        lambda pod: (pod.engine / "plan" / "rank0.engine").write_bytes(b"\2" * 100),
        "EngineDigestMismatch: engine smollm2-full-f16 has files with sha256 ",
    ),
    "another tokenizer": (
        lambda pod: (pod.engine / "tokenizer" / "tokenizer.json").write_text("[]"),
        "EngineDigestMismatch",
    ),
    "a file too many": (added, "EngineDigestMismatch"),
    # Only the one beside the plan is left out of the digest.
    "a namesake of built.json": (
        lambda pod: (pod.engine / "plan" / "built.json").write_text("{}"),
        "EngineDigestMismatch",
    ),
    "a link": (linked, "EngineInvalid: engine smollm2-full-f16: passwd: an engine may hold plain files only; its Job"),
    "no built.json": (
        lambda pod: (pod.engine / "built.json").unlink(),
        "EngineMissing: engine smollm2-full-f16: built.json is missing",
    ),
    "half of it": (
        lambda pod: (pod.engine / "built.json").write_text('{"key":'),
        "EngineInvalid: engine smollm2-full-f16: BuildRecord: not JSON",
    ),
    "no folder": (
        lambda pod: shutil.rmtree(pod.engine),
        "EngineMissing: engine smollm2-full-f16: there are no engine files; wait for its Job to build it",
    ),
    "no files": (never_built, "EngineMissing"),
    "a configuration that was changed": (with_another_key, "ConfigDigestMismatch"),
}


@pytest.mark.parametrize("break_it, message", UNBUILT.values(), ids=UNBUILT.keys())
def test_what_was_not_built_for_the_revision_is_not_served(built_pod: Pod, break_it: Change, message: str) -> None:
    break_it(built_pod)
    assert built_pod.refuse().startswith(message)


def test_an_engine_that_was_built_is_not_taken_for_one_that_was_promised(built_pod: Pod) -> None:
    built_pod.configure(backend="tensorrtllm")
    assert built_pod.run()[1].startswith("EngineDigestMismatch: engine smollm2-full-f16: these are not the files")


def test_from_checkpoint_to_served(pod: Pod, tmp_path: Path) -> None:
    """Every container that an engine passes through, but Triton."""
    job = Job(tmp_path / "job")
    job.run()
    shutil.rmtree(pod.engine)
    shutil.copytree(job.engine, pod.engine)
    pod.identity = replace(pod.identity, engine_digest=job.order.digest, gpu_product="NVIDIA-A10")
    pod.configure(backend="tensorrtllm", built=KEY)
    assert pod.run() == (0, "")
    (pod.engine / "plan/rank0.engine").write_text("damaged")
    assert pod.run()[1].startswith("EngineDigestMismatch")


def read_modules(package: Path) -> dict[Path, bytes]:
    """Return the files of a package by their paths in it, without compiled ones."""
    files = (path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(package): path.read_bytes() for path in files}


IMPORTS = """
import sys
sys.path = [entry for entry in sys.path if "model_repo" not in entry and "policies" not in entry] + [{version!r}]
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
import r1plus_model_repo.backends.requests as own, r1plus_contract.inference as contract
print(own.__file__, contract.__file__)
"""


@pytest.mark.parametrize("backend", ["vllm", "tensorrtllm"])
def test_to_an_image_that_has_no_code_of_ours_it_comes_along(pod: Pod, backend: str) -> None:
    pod.configure(backend=backend)
    assert pod.run() == (0, "")
    assert pod.run() == (0, ""), "and a rerun does the same"
    version = pod.delivery / "models/r1plus/1"
    assert "from r1plus_model_repo.backends.triton_model import TritonPythonModel" in (version / "model.py").read_text()
    assert {path.name for path in version.iterdir()} == {"model.py", "r1plus_contract", "r1plus_model_repo"}
    assert {path.name for path in (version / "r1plus_model_repo").iterdir()} == {"__init__.py", "backends"}
    root = Path(__file__).parents[3]
    for room, package in (("policies", "r1plus_contract"), ("model_repo", "r1plus_model_repo/backends")):
        assert read_modules(version / package) == read_modules(root / room / package)
    found = subprocess.run(
        [sys.executable, "-S", "-c", IMPORTS.format(version=str(version))], capture_output=True, text=True, cwd="/"
    )
    assert found.stdout.split() == [
        f"{version}/r1plus_model_repo/backends/requests.py",
        f"{version}/r1plus_contract/inference.py",
    ], found.stderr


@pytest.mark.parametrize("parameters", [{}, {"backend": "openvino"}, {"backends": "vllm"}], ids=str)
def test_to_our_own_image_no_code_is_brought(pod: Pod, parameters: dict[str, str]) -> None:
    pod.configure(**parameters)
    assert pod.run() == (0, "")
    assert pod.files() == ASSEMBLED
    model = (pod.delivery / "models/r1plus/1/model.py").read_text()
    assert "from r1plus_model_repo.backends.openvino_genai import TritonPythonModel" in model


def test_it_needs_the_standard_library_and_the_contract_only() -> None:
    code = (
        "import sys, r1plus_model_repo.delivery;"
        "print(sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'__main__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": _rooms()}
    )
    assert done.stdout.strip() == "['r1plus_contract', 'r1plus_model_repo']", done.stderr


def _rooms() -> str:
    root = Path(__file__).parents[3]
    return f"{root / 'model_repo'}:{root / 'policies'}"
