"""A machine with little memory, to `serve`: the kernel's own number replaced in a mount namespace. It needs root."""

import shlex
from pathlib import Path

from r1plus_edge.start.machine import RESERVED_BYTES
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_operator.plan.podspec.pod import POD_OVERHEAD
from support.edge.served import Served, read_objects


def measure_request(served: Served) -> int:
    """Return the memory that what serves requests, bytes."""
    (current,) = [
        one
        for one in read_objects(served.folder, "ControllerRevision")
        if one["metadata"]["name"] == served.status.revision
    ]
    containers = current["data"]["template"]["spec"]["containers"]
    requests = (one["resources"].get("requests", {}) for one in containers)
    return sum(bytes_of(one["memory"]) for one in requests if "memory" in one)


def write_small_program(folder: Path, program: Path, request: int) -> Path:
    """Return a program that runs `program` where the memory holds one and a half of what requests so many bytes."""
    memory = RESERVED_BYTES + POD_OVERHEAD + request * 3 // 2
    lines = Path("/proc/meminfo").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("MemTotal:", "MemAvailable:"))]
    text = [f"MemTotal: {memory // 1024} kB", f"MemAvailable: {memory // 1024} kB", *kept]
    meminfo, script = folder / "meminfo", folder / "r1plus"
    meminfo.write_text("\n".join(text) + "\n")
    inner = f'mount --bind {shlex.quote(str(meminfo))} /proc/meminfo && exec {shlex.quote(str(program))} "$@"'
    script.write_text(f'#!/bin/sh\nexec unshare --mount /bin/sh -c {shlex.quote(inner)} r1plus "$@"\n')
    script.chmod(0o755)
    return script
