"""Run mypy; in a new clone with the results of an earlier clone's last check: `python -m support.type_check`.

mypy looks at a file again unless its hash is that of its result. But where time and size of a file are those of its
result, it computes no hash. So results are taken only where each file of this clone is younger than all of them.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir
from evidence.repository import ROOT

RESULTS: Final = ".mypy_cache"
MARGIN_SECONDS: Final = 2.0
"""mypy compares whole seconds."""


def check_types(root: Path, shared: Path, run: Callable[[], int]) -> int:
    """Run mypy by `run` in the clone `root`, and return its exit code. `shared`: where clones leave their results.

    Only a clone that has no results yet reads others', and only then it leaves its own, if mypy found no fault.
    """
    own = root / RESULTS
    if own.exists():
        return run()
    archive = shared / f"{hashlib.sha256((root / 'uv.lock').read_bytes()).hexdigest()[:16]}.tar"
    if can_reuse(archive, root):
        with tarfile.open(archive) as results:
            results.extractall(root, filter="data")
    code = run()
    if code == 0 and own.exists():
        publish(own, archive)
    return code


def can_reuse(archive: Path, root: Path) -> bool:
    """Return whether there are results, and all of them are older than each file that mypy checks here."""
    files = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    times = [source.stat().st_mtime for place in files for source in (root / place).rglob("*.py")]
    return archive.is_file() and archive.stat().st_mtime + MARGIN_SECONDS < min(times, default=0.0)


def publish(own: Path, archive: Path) -> None:
    """Leave the results to later clones, and remove those of other locks. A cache that is read-only stays as it is."""
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=archive.parent)
    except OSError:
        return
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as results:
        results.add(own, arcname=RESULTS)
    shutil.copymode(own, name)
    Path(name).chmod(0o644)
    Path(name).replace(archive)
    for other in archive.parent.glob("*.tar"):
        if other != archive:
            other.unlink(missing_ok=True)


def main() -> int:
    """Run the mypy of this environment, and return its exit code."""
    command = [sys.executable, "-m", "mypy"]
    return check_types(ROOT, cache_dir() / "mypy", lambda: subprocess.run(command, cwd=ROOT).returncode)


if __name__ == "__main__":
    sys.exit(main())
