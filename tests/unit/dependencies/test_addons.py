"""The core without its add-ons: nothing of it imports them, its processes start and its command prints its help."""

import tomllib

import pytest

from support.addons import ADDONS, run_without_addons
from support.dependencies import ROOT
from support.tables import for_each


@pytest.mark.parametrize("addon", ADDONS)
def test_an_addon_cannot_be_imported_here(addon: str) -> None:
    assert f"No module named '{addon}'" in run_without_addons(f"import {addon}").stderr


@for_each("module", {
    "the operator": "r1plus_operator.main",
    "the supervisor of the monitor": "r1plus_monitoring.process.supervisor",
    "the prober of the monitor": "r1plus_monitoring.process.prober",
    "the check of an engine": "r1plus_model_repo.delivery",
    "the fetching of an engine": "r1plus_model_repo.engine_fetch.__main__",
    "the engines that Triton loads": "r1plus_model_repo.backends.engine_loop",
    "the gateway": "r1plus_gateway.process",
    "r1plus serve": "r1plus_edge.update.supervisor",
})  # fmt: skip
def test_a_process_of_the_core_loads_without_addons(module: str) -> None:
    done = run_without_addons(f"import {module}; print('loaded')")
    assert done.stdout == "loaded\n", done.stderr


@for_each("command, addon", {
    "distillation": ("engine distill", "training"),
    "an export": ("engine export", "training"),
    "training by answers": ("engine reinforce", "training"),
    "history": ("history", "history"),
    "evaluations": ("evaluations", "history"),
    "recorded engines": ("engines", "history"),
})  # fmt: skip
def test_a_verb_of_an_addon_says_how_to_install_it(command: str, addon: str) -> None:
    words = ["r1plus", *command.split(), "credit", "--option", "value"]
    done = run_without_addons(f"sys.argv = {words}; from r1plus_cli.main import main; main()")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    message = " ".join(done.stderr.split())
    assert f"r1plus {command} needs the add-on {addon}, which is not installed; in a clone: pip install" in message
    assert f".[cli,{addon}]" in message


def test_the_backend_of_the_own_architecture_says_how_to_install_it() -> None:
    code = """
import importlib.machinery, types
for name in ("torch", "transformers"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
sys.modules["transformers"].AutoTokenizer = None
from pathlib import Path
from r1plus_model_repo.backends.torch_engine import EngineSettings, TorchEngine
TorchEngine(EngineSettings(Path("model"), 1, 64, 1, 1))
"""
    stderr = run_without_addons(code).stderr
    assert (
        "RuntimeError: r1plus_model is not installed where Triton's Python looks; install r1plus[torch] there" in stderr
    )


@for_each("words", {"the command": [], "what makes engines": ["engine"], "what serves here": ["serve"]})
def test_the_command_prints_its_help_without_addons(words: list[str]) -> None:
    code = f"sys.argv = {['r1plus', *words, '--help']}; from r1plus_cli.main import main; main()"
    done = run_without_addons(code)
    assert (done.returncode, "Usage: r1plus" in done.stdout) == (0, True), done.stderr


def test_import_linter_knows_each_addon() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [one for one in settings["contracts"] if one["name"].startswith("The core imports no add-on")]
    assert sorted(contract["forbidden_modules"]) == ADDONS
    assert sorted([*contract["source_modules"], *ADDONS]) == sorted(settings["root_packages"])
