"""Names of the demo's engines, where the libraries that make them are not imported."""

import subprocess
import sys

from r1plus_model_repo.importing.demo_engines import DEMO_ENGINES
from r1plus_model_repo.importing.smollm2 import RECIPES


def test_the_names_are_those_that_can_be_made() -> None:
    assert sorted(DEMO_ENGINES) == sorted(RECIPES)


def test_serve_does_not_keep_the_libraries_of_engines_in_its_memory() -> None:
    script = (
        "import sys, r1plus_edge.serve; print([n for n in ('numpy', 'gguf', 'openvino', 'grpc') if n in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
