"""Bounds of dependencies: from the minor release that tests run with to the next release that may break.

The next one is the next major release, which is the next year where versions are years; of 0.x the next minor one.
"""

from collections.abc import Sequence

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from support.dependencies import PROJECTS, Dependency, list_dependencies, list_tested_versions
from support.tables import for_each

DEPENDENCIES = [dependency for path in PROJECTS for dependency in list_dependencies(path)]


def find_next_breaking(version: Version) -> Version:
    """Return the first release after `version` that may break what uses it."""
    return Version(f"0.{version.minor + 1}") if version.major == 0 else Version(str(version.major + 1))


def find_bound_problem(requirement: Requirement, tested: Sequence[Version]) -> str | None:
    """Return what is wrong with the bounds, with the right ones; None: nothing is."""
    bounds = {part.operator: Version(part.version) for part in requirement.specifier}
    fitting = sorted(version for version in tested if version in requirement.specifier)
    if not fitting:
        return f"no version that tests run with fits ({', '.join(map(str, tested)) or 'there is none'})"
    if set(bounds) == {"=="}:
        return None
    lowest, upper = fitting[0], find_next_breaking(fitting[-1])
    right = f"write >={lowest.major}.{lowest.minor},<{upper}"
    if set(bounds) != {">=", "<"}:
        return f"needs one lower and one upper bound; {right}"
    if bounds[">="].release[:2] != lowest.release[:2]:
        return f"no test runs with {bounds['>=']}; {right}"
    return None if bounds["<"] == upper else f"the upper bound is not the next major release; {right}"


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda one: f"{one.extra} {one.requirement}")
def test_a_dependency_has_the_bounds_of_what_is_tested(dependency: Dependency) -> None:
    problem = find_bound_problem(dependency.requirement, list_tested_versions(dependency.name))
    assert problem is None, f"{dependency.place}: {problem}"


RULES = {
    "a major release": ("aiohttp>=3.14,<4", ("3.14.5",), None),
    "a lower bound with its patch": ("kopf>=1.45.2,<2", ("1.45.2",), None),
    "a year": ("openvino>=2026.4,<2027", ("2026.4.1",), None),
    "0.x": ("httpx>=0.28,<0.29", ("0.28.1",), None),
    "one version": ("sympy==1.14.0", ("1.14.0",), None),
    "two locked versions": ("numpy>=1.26,<3", ("1.26.4", "2.5.5"), None),
    "the lower of two": ("numpy>=1.26,<2 ; python_version < '3.13'", ("1.26.4", "2.5.5"), None),
    "no upper bound": ("kubernetes>=37.0", ("37.0.2",), "needs one lower and one upper bound; write >=37.0,<38"),
    "no bound": ("kubernetes", ("37.0.2",), "needs one lower and one upper bound; write >=37.0,<38"),
    "an untested lower bound": ("rich>=14,<16", ("15.0.0",), "no test runs with 14; write >=15.0,<16"),
    "0.x up to 1": ("httpx>=0.28,<1", ("0.28.1",), "the upper bound is not the next major release; write >=0.28,<0.29"),
    "a major too many": ("rich>=15.0,<17", ("15.0.0",), "the upper bound is not the next major release; write >=15.0,<16"),
    "nothing that fits": ("rich>=14,<15", ("15.0.0",), "no version that tests run with fits (15.0.0)"),
    "nothing locked": ("rich==15.0.0", (), "no version that tests run with fits (there is none)"),
}  # fmt: skip


@for_each("requirement, tested, problem", RULES)
def test_the_rule(requirement: str, tested: tuple[str, ...], problem: str | None) -> None:
    assert find_bound_problem(Requirement(requirement), [Version(one) for one in tested]) == problem


def test_the_place_of_a_dependency_is_its_line() -> None:
    lines = PROJECTS[0].read_text().splitlines()
    places = [one.place for one in DEPENDENCIES if one.place.startswith("pyproject.toml:")]
    assert len(places) > 50
    for place in places:
        _, number, requirement = place.split(":", 2)
        assert f'"{requirement.strip()}"' in lines[int(number) - 1]


def test_a_package_has_equal_bounds_in_all_extras() -> None:
    bounds: dict[str, set[str]] = {}
    for one in DEPENDENCIES:
        bounds.setdefault(one.name, set()).add(str(one.requirement.specifier))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}
