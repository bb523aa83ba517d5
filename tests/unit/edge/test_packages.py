"""What `make quickstart` installs: the lock lists the packages of an extra that is made of others by itself."""

import tomllib

from support.paths import TESTS
from support.tables import for_each

PARTS = ("cli", "monitor", "gateway", "engine", "calculator", "code", "documents", "embedder")


@for_each("part", {part: part for part in PARTS})
def test_the_locked_extra_edge_has_every_package_of(part: str) -> None:
    lock = tomllib.loads((TESTS.parent / "uv.lock").read_text())
    (project,) = [package for package in lock["package"] if package["name"] == "r1plus"]
    names = {
        extra: {dependency["name"] for dependency in dependencies}
        for extra, dependencies in project["optional-dependencies"].items()
    }
    assert names[part]
    assert names[part] - names["edge"] == set(), "uv lock does not see it: run uv lock --upgrade-package NAME"
