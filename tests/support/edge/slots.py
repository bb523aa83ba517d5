"""Slots of software without wheels: environments of this clone's code, each with a backend of its own."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import r1plus_assistant
import r1plus_cli
import r1plus_contract
import r1plus_edge
import r1plus_gateway
import r1plus_model_repo
import r1plus_monitoring
import r1plus_operator
import r1plus_policies
from r1plus_edge.bundle.install import COMPLETE, switch_current

SOURCES = (
    *(r1plus_cli, r1plus_contract, r1plus_edge, r1plus_gateway, r1plus_assistant),
    *(r1plus_model_repo, r1plus_monitoring, r1plus_operator, r1plus_policies),
)
DEAD = ("r1plus_edge/start/serve.py", 'raise SystemExit("this release is broken")')
"""Ends what imports it."""
LAME = (
    "r1plus_edge/update/trial.py",
    'def adopt_trial(folder: DataFolder) -> None:\n    raise ValueError("this release is lame")',
)
"""Passes its trial, and does not take over."""
DOUBTFUL = (
    "r1plus_monitoring/session/evaluation.py",
    "async def _fail(self: EvaluationSession) -> bool:\n    return False\nEvaluationSession._run_short_check = _fail",
)
"""Passes its trial, and fails the check of what it has loaded then."""


def write_slot(root: Path, name: str, broken: tuple[str, str] | None = None) -> Path:
    """Make an environment whose backend differs from all others', and so its image; return its folder.

    `broken`: path of a module, and what is at its end.
    """
    slot, changes = root / name, [("r1plus_model_repo/backends/__init__.py", f"# {name}")]
    changes += [broken] if broken else []
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", slot], check=True)
    overlay = slot / "overlay"
    for module, text in changes:
        (source,) = (one for one in SOURCES if module.startswith(f"{one.__name__}/"))
        folder = Path(source.__path__[0])
        shutil.copytree(folder, overlay / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
        with (overlay / module).open("a") as file:
            file.write(f"\n{text}\n")
    packages = [Path(one.__path__[0]).parent for one in SOURCES]
    paths = [overlay, *dict.fromkeys(packages), sysconfig.get_path("purelib")]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (slot / "lib" / version / "site-packages/r1plus-test.pth").write_text("".join(f"{path}\n" for path in paths))
    program = slot / "bin/r1plus"
    program.write_text(f"#!{slot}/bin/python -P\nfrom r1plus_cli.main import main\nmain()\n")
    program.chmod(0o755)
    (slot / COMPLETE).touch()
    return slot


def write_slots(root: Path, *names: str) -> tuple[Path, ...]:
    """Make some slots; the first one is the current one."""
    slots = tuple(write_slot(root, name) for name in names)
    switch_current(root, slots[0])
    return slots
