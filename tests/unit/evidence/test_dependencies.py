"""What a target depends on: imports, packages around them, programs that are started, data files of packages."""

from pathlib import Path

import pytest

from evidence.dependencies import list_dependencies
from support.toy_repository import ToyRepository

FILES = {
    "tests/bench/speed/__main__.py": "from bench.speed import load\nfrom r1plus_gateway.http import server\n",
    "tests/bench/speed/load.py": "PROGRAM = ['-m', 'r1plus_edge.helper']\n",
    "tests/bench/conftest.py": "import r1plus_fixtures\n",
    "tests/engine/conftest.py": "",
    "policies/r1plus_fixtures.py": "",
    "gateway/r1plus_gateway/http/page/ask.js": "",
    "gateway/r1plus_gateway/store/tables.sql": "",
    "uv.lock": "",
    "tests/bench/other/__main__.py": "import r1plus_unused\n",
    "gateway/r1plus_gateway/__init__.py": "import r1plus_contract\nimport r1plus_client.streams\n",
    "addons/client/r1plus_client/__init__.py": "",
    "addons/client/r1plus_client/streams.py": "",
    "addons/client/r1plus_client/other.py": "",
    "gateway/r1plus_gateway/http/server.py": "def serve():\n    from r1plus_gateway.http import late\n",
    "gateway/r1plus_gateway/http/late.py": "",
    "gateway/r1plus_gateway/http/errors.json": "{}",
    "gateway/r1plus_gateway/store/tables.py": "",
    "edge/r1plus_edge/helper/__main__.py": "from r1plus_edge.helper.parts import one\n",
    "edge/r1plus_edge/helper/parts.py": "",
    "policies/r1plus_contract/__init__.py": "",
    "policies/r1plus_unused.py": "",
    "charts/values.yaml": "",
}


@pytest.fixture
def dependencies(tmp_path: Path) -> frozenset[str]:
    repository = ToyRepository(tmp_path)
    repository.commit(FILES)
    return list_dependencies(["tests/bench/speed"], ["charts"], tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("tests/bench/speed/load.py", id="what is imported from the target's own folder"),
        pytest.param("gateway/r1plus_gateway/http/server.py", id="what is imported from a package"),
        pytest.param("gateway/r1plus_gateway/http/late.py", id="what a function imports when it runs"),
        pytest.param("gateway/r1plus_gateway/__init__.py", id="the package around an imported module"),
        pytest.param("policies/r1plus_contract/__init__.py", id="what that package imports"),
        pytest.param("addons/client/r1plus_client/streams.py", id="what it imports of an add-on"),
        pytest.param("edge/r1plus_edge/helper/__main__.py", id="a program that is started by its name"),
        pytest.param("edge/r1plus_edge/helper/parts.py", id="what that program imports"),
        pytest.param("gateway/r1plus_gateway/http/errors.json", id="data in the folder of an imported module"),
        pytest.param("gateway/r1plus_gateway/http/page/ask.js", id="data in a folder below that package"),
        pytest.param("tests/bench/conftest.py", id="fixtures around its tests"),
        pytest.param("policies/r1plus_fixtures.py", id="what fixtures import"),
        pytest.param("uv.lock", id="the lock"),
        pytest.param("charts/values.yaml", id="what the target names"),
    ],
)
def test_a_target_depends_on(dependencies: frozenset[str], path: str) -> None:
    assert path in dependencies


def test_a_target_depends_on_nothing_else(dependencies: frozenset[str]) -> None:
    others = FILES.keys() - dependencies
    assert others == {
        "addons/client/r1plus_client/other.py",
        "tests/bench/other/__main__.py",
        "tests/engine/conftest.py",
        "gateway/r1plus_gateway/store/tables.py",
        "gateway/r1plus_gateway/store/tables.sql",
        "policies/r1plus_unused.py",
    }
