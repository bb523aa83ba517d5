"""Around a build: proved files go in, a sealed engine comes out, and nothing half-made is ever found as one."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import (
    EXIT_PERMANENT,
    EXIT_RETRYABLE,
    Archive,
    Build,
    BuildRecord,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_contract.jsonable import loads
from r1plus_model_repo import built_engine
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.seal import prepare_checkpoint, seal
from r1plus_model_repo.engine_fetch.storage import SPARE_BYTES
from r1plus_model_repo.engine_fetch.volume import fill_volume
from r1plus_model_repo.importing.package.signature import sign
from support.model_repo.engine_fetch.builds import (
    DIES,
    FAILS,
    FILES,
    HOST,
    IDLES,
    RECIPE,
    SMALL_BYTES,
    WHOLE,
    Job,
    quiet,
    small_file_system,
    write,
)

CHECKPOINT = sorted(f".checkpoint/engine/{name}" for name in FILES)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def refused(does: Callable[[], object], reason: FillRefusal, exit_code: int) -> str:
    with pytest.raises(FillError) as raised:
        does()
    assert (raised.value.reason, raised.value.exit_code) == (reason, exit_code)
    return str(raised.value)


def test_what_is_to_be_built_is_proved_and_laid_out(job: Job) -> None:
    told: list[FillProgress] = []
    job.copy()
    assert prepare_checkpoint(job.order, job.volume, None, told.append)
    assert job.files(but=(".lock",)) == sorted([*CHECKPOINT, ".checkpoint/.source"])
    assert [progress.phase for progress in told] == [FillPhase.VERIFYING, FillPhase.BUILDING]


def test_an_archive_is_laid_out_as_an_image_is(job: Job) -> None:
    order = replace(job.order, archive=Archive("https://models.example/x.tar", "a" * 64))
    assert prepare_checkpoint(order, job.volume, lambda part: write(part / "engine") and None, quiet)
    assert job.files() == CHECKPOINT


def test_what_was_built_becomes_the_engine_and_nothing_else_stays(job: Job) -> None:
    job.fetch_anew()
    assert job.build().returncode == 0
    told: list[FillProgress] = []
    seal(job.order, job.volume, HOST, told.append)
    assert job.files(but=(".lock",)) == sorted([".source", *WHOLE])
    assert [path.name for path in job.volume.iterdir() if path.is_dir()] == ["engine"]
    assert [progress.phase for progress in told] == [FillPhase.VERIFYING, FillPhase.DONE]
    found = loads(BuildRecord, (job.engine / "built.json").read_text())
    rest = shutil.copytree(job.engine, job.root / "rest", ignore=shutil.ignore_patterns("built.json"))
    assert found == BuildRecord(RECIPE.key, job.order.digest, "NVIDIA-A10", digest_folder(rest))
    assert (job.engine / "tokenizer/tokenizer.json").read_bytes() == FILES["tokenizer/tokenizer.json"]


def test_the_builder_is_given_the_checkpoint_and_a_folder_of_its_pod(job: Job) -> None:
    job.fetch_anew()
    write(job.volume / f".built-{HOST}", {"plan/stale": b"x"})
    done = job.build()
    assert (done.returncode, done.stderr) == (0, "")
    arguments = job.record.read_text().splitlines()
    assert arguments[:4] == [
        "--checkpoint_dir",
        f"{job.volume}/.checkpoint/engine/checkpoint",
        "--output_dir",
        f"{job.volume}/.built-{HOST}/plan",
    ]
    assert not (job.volume / f".built-{HOST}/plan/stale").exists()


def test_an_engine_that_is_there_is_neither_fetched_nor_built_again(job: Job) -> None:
    job.run()
    before = digest_folder(job.engine)
    write(job.checkpoint / "engine")
    write(job.volume / ".built-dead", {"plan/rank0.engine": b"half"})
    told: list[FillProgress] = []
    job.copy()
    assert not prepare_checkpoint(job.order, job.volume, lambda _: pytest.fail("fetched twice"), told.append)
    assert [progress.phase for progress in told] == [FillPhase.VERIFYING, FillPhase.DONE]
    job.record.unlink()
    done = job.build()
    assert (done.returncode, "the engine is on the volume already" in done.stdout) == (0, True)
    assert not job.record.exists()
    job.seal()
    assert (job.files(), digest_folder(job.engine)) == (WHOLE, before)


def test_what_a_newer_version_says_beside_it_is_passed_over(job: Job) -> None:
    job.run()
    document = json.loads((job.engine / "built.json").read_text())
    (job.engine / "built.json").write_text(json.dumps({**document, "newer": 1}))
    assert not job.fetch()


def other_build(key: str = RECIPE.key, gpu_product: str = "NVIDIA-A10") -> Callable[[Job], object]:
    """Order another build."""
    return lambda job: setattr(job, "order", replace(job.order, build=Build(key, gpu_product)))


def describe_other_files(job: Job) -> None:
    built_engine.write_built(
        job.engine, BuildRecord(RECIPE.key, "0" * 64, "NVIDIA-A10", built_engine.compute_files_digest(job.engine))
    )


another_key = other_build("f" * 64)
OTHERS: dict[str, Callable[[Job], object]] = {
    "another_key": another_key,
    "another_gpu": other_build(gpu_product="NVIDIA-L4"),
    "damaged": lambda job: (job.engine / "plan/rank0.engine").write_bytes(b"other"),
    "added": lambda job: (job.engine / "stray").touch(),
    "linked": lambda job: (job.engine / "link").symlink_to("/etc/passwd"),
    "unsealed": lambda job: (job.engine / "built.json").unlink(),
    "garbled": lambda job: (job.engine / "built.json").write_bytes(b"\xff{"),
    "of_other_files": describe_other_files,
    "without_source": lambda job: (job.volume / ".source").unlink(),
    "with_another_source": lambda job: (job.volume / ".source").write_text(""),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_any_other_engine_is_built_anew(job: Job, change: Callable[[Job], object]) -> None:
    job.run()
    change(job)
    refused(job.seal, FillRefusal.BUILD_FAILED, EXIT_RETRYABLE)
    assert job.fetch_anew()
    assert job.build().returncode == 0
    job.seal()
    assert job.files() == WHOLE
    assert not job.fetch_anew()


def test_a_proved_checkpoint_is_not_fetched_again(job: Job) -> None:
    job.fetch_anew()
    inode = (job.checkpoint / "engine").stat().st_ino
    write(job.volume / ".built-dead", {"plan/rank0.engine": b"half"})
    job.copy()
    assert prepare_checkpoint(job.order, job.volume, lambda _: pytest.fail("fetched twice"), quiet)
    assert (job.files(), (job.checkpoint / "engine").stat().st_ino) == (CHECKPOINT, inode)


@pytest.mark.parametrize("name", ["checkpoint/rank0.safetensors", "tokenizer/tokenizer.json", "stray"])
def test_a_checkpoint_that_was_changed_is_fetched_again(job: Job, name: str) -> None:
    job.fetch_anew()
    (job.checkpoint / "engine" / name).write_bytes(b"other")
    assert job.fetch_anew()
    assert job.files() == CHECKPOINT
    assert digest_folder(job.checkpoint / "engine") == job.order.digest


@pytest.mark.parametrize("gone", ["checkpoint", "tokenizer"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_an_artifact_that_nothing_can_be_built_of_is_told_for_good(job: Job, gone: str, how: str) -> None:
    files = {name: content for name, content in FILES.items() if not name.startswith(gone)}
    files |= {f"{gone}/empty": b""} if how == "empty" else {}
    job.copy(files)
    digest = digest_folder(job.volume / ".incoming" / "engine")
    told = refused(lambda: job.fetch(digest=digest), FillRefusal.ENGINE_INVALID, EXIT_PERMANENT)
    assert f"{gone}/ has no files" in told
    assert job.files() == []


def test_other_files_than_were_promised_are_not_laid_out(job: Job) -> None:
    job.copy({**FILES, "checkpoint/config.json": b"{}"})
    refused(job.fetch, FillRefusal.ENGINE_DIGEST_MISMATCH, EXIT_PERMANENT)
    assert job.files() == []


def link_to_a_folder(plan: Path) -> None:
    write(plan.parent, {"elsewhere/rank0.engine": b"x"})
    plan.symlink_to(plan.parent / "elsewhere")


def link_to_a_file(plan: Path) -> None:
    write(plan.parent, {"rank0.engine": b"x"})
    plan.mkdir()
    (plan / "rank0.engine").symlink_to(plan.parent / "rank0.engine")


NO_PLANS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda plan: "the builder has not even begun",
    "empty_folder": lambda plan: plan.mkdir(parents=True),
    "empty_file": lambda plan: write(plan, {"rank0.engine": b""}),
    "a_file": lambda plan: write(plan.parent, {"plan": b"x"}),
    "a_link_to_a_folder": link_to_a_folder,
    "a_link_to_a_file": link_to_a_file,
    "a_link_beside": lambda plan: (write(plan, {"rank0.engine": b"x"}) / "passwd").symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("leave", NO_PLANS.values(), ids=NO_PLANS)
def test_what_is_no_engine_is_not_sealed_and_the_old_one_stays(job: Job, leave: Callable[[Path], object]) -> None:
    job.run()
    before = digest_folder(job.engine)
    another_key(job)
    job.fetch_anew()
    leave(job.volume / f".built-{HOST}" / "plan")
    assert "the builder wrote" in refused(job.seal, FillRefusal.BUILD_FAILED, EXIT_RETRYABLE)
    assert digest_folder(job.engine) == before
    assert job.checkpoint.is_dir(), "the next attempt need not fetch"
    assert job.fetch_anew()
    job.build()
    job.seal()
    assert job.files() == WHOLE


def test_of_what_another_pod_builds_nothing_is_sealed(job: Job) -> None:
    job.fetch_anew()
    job.build(host="another")
    told = refused(job.seal, FillRefusal.BUILD_FAILED, EXIT_RETRYABLE)
    assert f".built-{HOST}/plan" in told
    job.seal(host="another")
    assert job.files() == WHOLE


FAILURES = {"fails": (FAILS, 3, "out of memory"), "dies": (DIES, -9, ""), "idles": (IDLES, 1, "left nothing")}


@pytest.mark.parametrize("does, code, said", FAILURES.values(), ids=FAILURES.keys())
def test_after_a_builder_that_failed_the_next_pod_builds(job: Job, does: str, code: int, said: str) -> None:
    job.fetch_anew()
    done = job.build(does)
    assert (done.returncode, said in done.stderr) == (code, True)
    assert not job.engine.exists()
    assert job.fetch_anew()
    assert job.files() == CHECKPOINT, "of the first pod nothing is left"
    assert job.build(host="next").returncode == 0
    job.seal(host="next")
    assert job.files() == WHOLE


def test_a_tokenizer_that_the_builder_touched_is_not_served(job: Job) -> None:
    job.fetch_anew()
    job.build()
    (job.checkpoint / "engine/tokenizer/tokenizer.json").write_bytes(b"other")
    assert "the tokenizer changed during the build" in refused(job.seal, FillRefusal.BUILD_FAILED, EXIT_RETRYABLE)
    assert not job.engine.exists()


def test_what_another_job_was_killed_over_is_not_in_the_way(job: Job) -> None:
    job.fetch_anew()
    job.build()
    write(job.volume / ".part", {"engine/half": b"x"})
    job.seal()
    assert job.files() == WHOLE


def test_a_checkpoint_of_another_order_is_not_sealed(job: Job) -> None:
    job.fetch_anew()
    job.build()
    refused(lambda: job.seal(digest="0" * 64), FillRefusal.ENGINE_DIGEST_MISMATCH, EXIT_PERMANENT)
    assert not job.engine.exists()


def signed(job: Job) -> str:
    """Sign the artifact; the public key."""
    private, public = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    key = job.root / "key"
    key.write_bytes(private.private_bytes(public, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    job.copy()
    sign(job.volume / ".incoming", key)
    return private.public_key().public_bytes(public, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def test_who_signed_the_checkpoint_vouches_for_what_is_built_of_it(job: Job) -> None:
    public = signed(job)
    job.order = replace(job.order, keys=(public,))
    assert job.fetch()
    assert job.build().returncode == 0
    job.seal()
    assert job.files() == sorted([*WHOLE, "model.sig"])
    assert not job.fetch_anew()
    job.copy()
    told = refused(lambda: job.fetch(keys=()), FillRefusal.SIGNATURE_INVALID, EXIT_PERMANENT)
    assert "model.sig is missing" in told, "and the engine that was there is believed no more"


def test_a_checkpoint_that_nobody_vouches_for_is_not_built(job: Job) -> None:
    public = signed(job)
    job.copy()
    refused(lambda: job.fetch(keys=(public,)), FillRefusal.SIGNATURE_INVALID, EXIT_PERMANENT)
    assert job.files() == []
    job.fetch_anew()
    job.build()
    refused(lambda: job.seal(keys=(public,)), FillRefusal.SIGNATURE_INVALID, EXIT_PERMANENT)
    assert not job.engine.exists()


def test_each_order_has_its_stages(job: Job) -> None:
    job.copy()
    told = refused(lambda: fill_volume(job.order, job.volume, None, quiet), FillRefusal.ENGINE_INVALID, EXIT_PERMANENT)
    assert "run the stages fetch and seal, not all" in told
    for stage in (job.fetch, job.seal):
        told = refused(lambda stage=stage: stage(build=None), FillRefusal.ENGINE_INVALID, EXIT_PERMANENT)  # type: ignore[misc]
        assert "run the stage all" in told
    assert (job.volume / ".incoming").is_dir(), "nothing was touched"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    with small_file_system(job.volume):
        yield job


FREE = SMALL_BYTES - SPARE_BYTES


@pytest.mark.parametrize("size, fits", [(FREE // 2 - 8192, True), (FREE // 2 + 8192, False)])
def test_there_must_be_room_for_checkpoint_and_plan(small: Job, size: int, fits: bool) -> None:
    order = replace(small.order, size=size, archive=Archive("https://models.example/x.tar", "a" * 64))
    if fits:
        assert prepare_checkpoint(order, small.volume, lambda part: write(part / "engine") and None, quiet)
        return
    told = refused(
        lambda: prepare_checkpoint(order, small.volume, lambda _: pytest.fail("fetched"), quiet),
        FillRefusal.STORAGE_FULL,
        EXIT_RETRYABLE,
    )
    assert f"needs {2 * size + SPARE_BYTES} bytes" in told


@pytest.mark.parametrize("again", [False, True], ids=["out of an image", "of a checkpoint that is there"])
def test_of_files_that_are_there_only_the_plan_needs_room(small: Job, again: bool) -> None:
    small.copy()
    if again:
        small.fetch()
    told = refused(lambda: small.fetch(size=FREE), FillRefusal.STORAGE_FULL, EXIT_RETRYABLE)
    assert f"needs {FREE + SPARE_BYTES} bytes" in told
    small.copy()
    assert small.fetch(size=FREE - 512 * 1024)


def test_the_last_byte_will_do_and_what_was_copied_in_vain_is_not_in_the_way(small: Job) -> None:
    small.fetch_anew()
    found = os.statvfs(small.volume)
    free = found.f_bavail * found.f_frsize
    small.copy()
    assert small.fetch(size=free - SPARE_BYTES)
    refused(lambda: small.fetch(size=free - SPARE_BYTES + 1), FillRefusal.STORAGE_FULL, EXIT_RETRYABLE)


LEAST = {("fetch", "none"): 15, ("fetch", "old"): 20, ("seal", "none"): 35, ("seal", "old"): 45}


@pytest.mark.parametrize(
    "stage, start", LEAST, ids=["fetch", "fetch beside an old one", "seal", "seal in place of an old one"]
)
def test_killed_at_any_step_it_leaves_no_half_engine_and_the_next_pod_goes_on(
    tmp_path: Path, stage: str, start: str
) -> None:
    """In memory where there is room: a file system on a disk spends most of the time on writing through."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        command = [sys.executable, "-m", "support.model_repo.engine_fetch.killed", stage, start, folder]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= LEAST[stage, start]
