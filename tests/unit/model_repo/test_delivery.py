"""The init container `verify`, run as a pod runs it: in a process of its own, on folders."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.delivery import digest_of
from r1plus_contract.identity import ServingIdentity
from r1plus_contract.jsonable import dumps

CONFIG = 'name: "r1plus"\n'


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
            engine_digest=digest_of(self.engine),
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
        command = [sys.executable, "-m", "r1plus_model_repo.delivery", *map(str, folders)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stderr

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.delivery).as_posix() for p in self.delivery.rglob("*") if p.is_file())


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


def flipped(pod: Pod) -> None:
    (pod.engine / "openvino_model.bin").write_bytes(b"\x01" + b"\x00" * 99)


def renamed(pod: Pod) -> None:
    (pod.engine / "openvino_model.bin").rename(pod.engine / "other.bin")


def added(pod: Pod) -> None:
    (pod.engine / "more").write_text("")


def linked(pod: Pod) -> None:
    (pod.engine / "passwd").symlink_to("/etc/passwd")


def emptied(pod: Pod) -> None:
    for path in pod.engine.iterdir():
        path.unlink()


def reconfigured(pod: Pod) -> None:
    (pod.revision / "config.pbtxt").write_text(CONFIG + "max_batch_size: 3\n")


STATE = """<layer id="{n}" name="ReadValue_{n}" type="ReadValue" version="opset6">
    <data variable_id="past_key_values.{n}.present.{n}.{part}" variable_type="f32" variable_shape="{shape}" /></layer>"""


def shaped(pod: Pod, claim: int, *, layers: int = 2, shape: str = "?,3,?,64") -> str:
    """A pod whose engine has that shape, and whose configuration was made for `claim` bytes per token."""
    states = [STATE.format(n=n, part=part, shape=shape) for n in range(layers) for part in ("key", "value")]
    (pod.engine / "openvino_model.xml").write_text(f"<net>{''.join(states)}</net>")
    parameter = f'parameters {{\n  key: "kv_bytes_per_token"\n  value {{\n    string_value: "{claim}"\n  }}\n}}\n'
    (pod.revision / "config.pbtxt").write_text(CONFIG + parameter)
    digest = hashlib.sha256((CONFIG + parameter).encode()).hexdigest()
    pod.write(engine_digest=digest_of(pod.engine), config_digest=digest)
    return pod.run()[1]


PER_TOKEN = 2 * 2 * 3 * 64 * 2


def test_an_engine_of_the_shape_that_its_entry_claims_is_served(pod: Pod) -> None:
    assert shaped(pod, PER_TOKEN) == ""


@pytest.mark.parametrize("claim", [PER_TOKEN - 1, PER_TOKEN + 1, PER_TOKEN // 3])
def test_an_entry_that_claims_another_architecture_than_its_files_have_is_refused(pod: Pod, claim: int) -> None:
    told = shaped(pod, claim)
    assert (
        f"ArchitectureMismatch: engine smollm2-full-f16: spec.architecture: its layers, kvHeads and headSize make {claim}"
        in told
    )
    assert f"the files' make {PER_TOKEN}: layers 2, kvHeads 3, headSize 64; correct the R1PlusEngine" in told
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


def unknown_field(pod: Pod) -> None:
    (pod.revision / "identity.json").write_text('{"engines": 1}')


def without_identity(pod: Pod) -> None:
    (pod.revision / "identity.json").unlink()


FAULTS = {
    "a flipped bit": (flipped, "EngineDigestMismatch: engine smollm2-full-f16: sha256 is"),
    "a renamed file": (renamed, "EngineDigestMismatch"),
    "a file too many": (added, "EngineDigestMismatch"),
    "a link": (linked, "EngineInvalid: engine smollm2-full-f16: passwd: an engine may hold plain files only"),
    "no files": (emptied, "EngineMissing"),
    "another configuration": (reconfigured, "ConfigDigestMismatch: config.pbtxt"),
    "an identity of another version": (unknown_field, "RevisionUnreadable: ServingIdentity.engines: unknown field"),
    "no identity": (without_identity, "RevisionUnreadable"),
}


@pytest.mark.parametrize("break_it, message", FAULTS.values(), ids=FAULTS.keys())
def test_what_was_not_promised_is_not_served_and_the_pod_says_why(pod: Pod, break_it: object, message: str) -> None:
    break_it(pod)  # type: ignore[operator]
    code, stderr = pod.run()
    assert code == 1
    assert message in stderr
    assert pod.log.read_text() == stderr.strip()
    assert not (pod.delivery / "models").exists()


def test_the_message_has_both_digests_and_a_remedy(pod: Pod) -> None:
    pod.write(engine_digest="a" * 64)
    _, stderr = pod.run()
    assert f"sha256 is {pod.identity.engine_digest}, the catalog promises {'a' * 64}" in stderr
    assert "deliver the right ones" in stderr


def test_without_a_termination_log_the_message_is_still_on_stderr(pod: Pod) -> None:
    pod.log.unlink()
    flipped(pod)
    code, stderr = pod.run()
    assert (code, pod.log.exists()) == (1, False)
    assert "EngineDigestMismatch" in stderr


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
