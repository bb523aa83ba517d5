"""Kills a stage at each thing that it does to the volume: `python -m support.model_repo.engine_fetch.killed STAGE START DIR`.

In a process of its own, since it forks: each child does the same work and dies one step later. After each death the
volume must hold the whole old engine, or while it is sealed none or the whole new one, and a new pod must get it there. Prints the number of
deaths.
"""

import os
import shutil
import sys
from pathlib import Path

from r1plus_contract.engine.engine_fetch import BuildRecord
from r1plus_model_repo import built_engine
from support.model_repo.engine_fetch.builds import RECIPE, WHOLE, Job, write

STEPS = frozenset({"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove"})
OLD = {"plan/rank0.engine": b"old", "plan/config.json": b"{}", "tokenizer/tokenizer.json": b"old"}


def prepared(root: Path, stage: str, start: str) -> Job:
    """A volume on which the stage begins."""
    job = Job(root)
    if start == "old":
        engine = write(job.engine, OLD)
        built_engine.write_built(
            engine, BuildRecord("0" * 64, "1" * 64, "NVIDIA-L4", built_engine.compute_files_digest(engine))
        )
        write(job.volume / ".built-dead" / "plan", {"rank0.engine": b"half"})
    job.copy()
    if stage == "seal":
        job.fetch()
        plan(job)
    return job


def plan(job: Job) -> None:
    """What a builder leaves, without one."""
    write(job.volume / ".built-me" / "plan", {"rank0.engine": b"new", "config.json": b"{}"})


def killed(job: Job, stage: str, after: int) -> bool:
    """Do the stage in a child that dies at its step number `after`; False where it had done by then."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = after

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        # A tree is removed by names within open folders: only of what is opened the whole path is told.
        if event in STEPS and (event != "open" or str(arguments[0]).startswith(str(job.volume))):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), 9)

    sys.addaudithook(hook)
    job.fetch() if stage == "fetch" else job.seal("me")
    os._exit(0)


def state(job: Job) -> str:
    """Of `engine/`: none, old, new or half."""
    if not job.engine.exists():
        return "none"
    try:
        told, files = built_engine.read_built(job.engine), built_engine.compute_files_digest(job.engine)
    except ValueError:
        return "half"
    if told is None or told.files != files:
        return "half"
    return "new" if told.key == RECIPE.key else "old"


def main(stage: str, start: str, root: Path) -> None:
    deaths = 0
    while killed(job := prepared(root / str(deaths), stage, start), stage, deaths):
        assert state(job) in ({start} if stage == "fetch" else {"none", start, "new"}), (
            f"{state(job)} after {deaths} steps"
        )
        job.copy()
        if job.fetch():
            plan(job)
        job.seal("me")
        assert (state(job), job.files()) == ("new", WHOLE), f"{job.files()} after {deaths} steps"
        shutil.rmtree(job.root)
        deaths += 1
    print(deaths)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
