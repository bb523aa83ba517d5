"""Files of BIG-bench, out of Google's package on PyPI, kept in the cache: public sets that nobody here has written.

The package is a source archive of 342 MiB. It is unpacked and never installed.
"""

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from devcluster.cache import cache_dir, locked, staged
from devcluster.toolchain import uv
from support.locked_packages import check_room

VERSION: Final = "1.0.0"
SHA256: Final = "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"
"""Of the archive."""
NEEDED_BYTES: Final = 10**9
"""While it is fetched."""
TASKS: Final = f"bigbench-{VERSION}/bigbench/benchmark_tasks"
COQA: Final = "coqa_conversational_question_answering/coqa.test.json"
MATH_QA: Final = "elementary_math_qa/question_only/task.json"
ARITHMETIC: Final = tuple(
    f"arithmetic/{digits}_digit_{operation}/task.json"
    for operation in ("addition", "subtraction", "multiplication", "division")
    for digits in (2, 3)
)


def find_file(name: str) -> Path:
    """Return a file of the package's tasks, of those named above; the package is fetched once.

    Raises:
        SystemExit: it cannot be fetched, or is another one.
    """
    folder = cache_dir() / "big-bench" / VERSION
    with locked("big-bench"):
        if not folder.exists():
            check_room(folder, NEEDED_BYTES, "BIG-bench's package")
            with staged(folder) as part:
                _fetch(part)
    return folder / name


def _fetch(folder: Path) -> None:
    """Unpack the files into a folder."""
    archive = folder.with_name("archive")
    requirements = folder.with_name("requirements.txt")
    requirements.write_text(f"bigbench=={VERSION} --hash=sha256:{SHA256}\n")
    command = [uv(), "tool", "run", "--no-config", "pip@25.3", "download", "--quiet", "--no-deps", "--require-hashes"]
    result = subprocess.run(
        [*command, "--dest", archive, "--requirement", requirements], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise SystemExit(f"bigbench {VERSION} cannot be fetched from PyPI: {result.stderr.strip()[-800:]}")
    (file,) = archive.iterdir()
    wanted = {f"{TASKS}/{name}": folder / name for name in (COQA, MATH_QA, *ARITHMETIC)}
    with tarfile.open(file) as packed:
        for member in packed:
            if (target := wanted.get(member.name)) is not None and (data := packed.extractfile(member)) is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as copy:
                    shutil.copyfileobj(data, copy)
    shutil.rmtree(archive)
