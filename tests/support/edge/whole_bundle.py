"""A bundle with everything that a machine needs, by the command line as its maker runs it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster.cache import cache_dir
from r1plus_model_repo.importing.smollm2 import build_engines
from support.edge.engines import write_newer
from support.edge.served import COMMAND
from support.edge.sources import ROOMS, copy_sources
from support.edge.suites import write_part

ENGINE = "smollm2-edge-q4-1"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle, its installer beside it, and what its maker said on another way."""

    path: Path
    key: str
    printed: str
    make: list[str]

    @property
    def installer(self) -> Path:
        return self.path.with_name("install.pyz")


@contextmanager
def making_bundle() -> Iterator[Bundled]:
    """A bundle with everything, and a golden suite of 32 items."""
    build_engines(cache_dir() / "engines", print, (ENGINE,))
    folder = Path(tempfile.mkdtemp(prefix="r1plus-bundle-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        write_part(folder / "part-v1")
        key_file = folder / "key.pem"
        key = subprocess.check_output([COMMAND, "suite", "keygen", "--out", key_file], text=True).strip()
        make = [str(COMMAND), "edge", "bundle", "--key", str(key_file), "--software", "--triton"]
        make += ["--engine", ENGINE, "--suite", str(folder / "part-v1")]
        began = time.monotonic()
        result = subprocess.run(
            [*make, str(folder / "r1plus.tar")],
            capture_output=True,
            text=True,
            env={**os.environ, "R1PLUS_CACHE": str(cache_dir())},
        )
        assert result.returncode == 0, result.stderr
        print(f"bundle made in {time.monotonic() - began:.0f} s: {result.stderr}")
        yield Bundled(folder / "r1plus.tar", key, result.stdout.strip(), make)
    finally:
        shutil.rmtree(folder)


def make_newer(bundled: Bundled, scratch: Path) -> Path:
    """Return a bundle of the same maker beside the first: software whose backend differs, and so its image; its engine."""
    clone = copy_sources(scratch / "clone")
    with (clone / "model_repo/r1plus_model_repo/backends/__init__.py").open("a") as file:
        file.write("# newer\n")
    files, catalog = write_newer(cache_dir() / "engines" / ENGINE, scratch)
    newer = bundled.path.with_name("newer.tar")
    paths = os.pathsep.join(str(clone / room) for room in ROOMS)
    own: list[str | Path] = [
        "--software",
        "--engine",
        files,
        "--catalog",
        catalog,
        "--key",
        bundled.path.with_name("key.pem"),
    ]
    environ = {**os.environ, "R1PLUS_CACHE": str(cache_dir()), "PYTHONPATH": paths}
    subprocess.run([COMMAND, "edge", "bundle", newer, *own], env=environ, check=True)
    return newer
