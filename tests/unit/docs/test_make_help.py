"""`make help` has a line for each target that stands alone, lists have the others, and `T=TARGET` shows the variables of each."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MOST_CHARACTERS, MOST_NOTE_CHARACTERS = 80, 130
NOT_VARIABLES = frozenset({"HOME", "MAKE", "MAKEFILE_LIST", "MAKEOVERRIDES"})
"""What make and the environment set by themselves."""
GROUPS = ["Every day", "Try it", "Tests", "Long", "Release"]
LISTS = {"bench": "NAME", "e2e": "STORY", "test-long": "NAME"}
"""Targets that run another one, and the variable that names it."""
MOST_DOCUMENTED = 25


@dataclass(frozen=True, slots=True)
class Target:
    """A target of the Makefile as its text has it."""

    name: str
    group: str
    """In `make help`, or the list that it belongs to; `part` of what no list has."""
    sentence: str
    notes: tuple[str, ...]
    recipe: str

    @property
    def call(self) -> str:
        """What a person types."""
        variable = LISTS.get(self.group)
        return f"make {self.group} {variable}={self.short}" if variable else f"make {self.name}"

    @property
    def short(self) -> str:
        """The name in its list."""
        return re.sub("^(bench|e2e|test)-", "", self.name)


@cache
def read_lines() -> tuple[str, ...]:
    return tuple((ROOT / "Makefile").read_text().splitlines())


def read_recipe(number: int) -> str:
    """Return the lines of a recipe that begins after this line."""
    lines = []
    for line in read_lines()[number + 1 :]:
        if not line.startswith("\t"):
            break
        lines.append(line)
    return "\n".join(lines)


def read_targets() -> Iterator[Target]:
    """Yield the targets that have a sentence."""
    group, member, notes = "", None, list[str]()
    for number, line in enumerate(read_lines()):
        if line.startswith("##@ "):
            group = line[4:]
        elif line.startswith(("#| ", "#: ")):
            notes.append(line)
        elif match := re.match(r"#([a-z0-9-]+)> (.*)", line):
            member = match
        elif match := re.match(r"([a-z0-9-]+):.*? ## (.*)", line):
            yield Target(match[1], group, match[2], tuple(notes), read_recipe(number))
        elif member and (match := re.match(r"([a-z0-9-]+):(?!=)", line)):
            yield Target(match[1], member[1], member[2], tuple(notes), read_recipe(number))
        elif not line:
            member, notes = None, []


def read_definitions() -> dict[str, str]:
    """Return the Makefile's own variables."""
    matches = (re.match(r"(?:export )?([A-Z][A-Z0-9_]*) :?= ?(.*)", line) for line in read_lines())
    return {match[1]: match[2] for match in matches if match}


def list_variables(text: str) -> set[str]:
    """Return the variables that a text reads, also by those that the Makefile defines."""
    definitions = read_definitions()
    read, todo = set[str](), set(re.findall(r"\$[({]([A-Z][A-Z0-9_]*)[)},]", text))
    while todo:
        name = todo.pop()
        if name in definitions and name not in read:
            todo |= set(re.findall(r"\$[({]([A-Z][A-Z0-9_]*)[)},]", definitions[name])) - read
        read.add(name)
    return read - definitions.keys() - NOT_VARIABLES


TARGETS = list(read_targets())


def run_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # An outer make passes its own variables on.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def run_help(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_make("help", *arguments)


def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what make would run, without the line that calls make itself."""
    process = run_make("-n", *arguments)
    lines = [line for line in process.stdout.splitlines(keepends=True) if "make --no-print-directory" not in line]
    return subprocess.CompletedProcess(process.args, process.returncode, "".join(lines), process.stderr)


def test_every_target_has_a_sentence() -> None:
    phony = {name for line in read_lines() if line.startswith(".PHONY: ") for name in line.split()[1:]}
    assert len(phony) >= 70
    assert phony == {target.name for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_sentence_is_short_and_names_no_variable(target: Target) -> None:
    assert len(target.sentence) <= MOST_CHARACTERS
    assert not re.search(r"[\[\]]", target.sentence)
    assert target.group in {*GROUPS, *LISTS, "part"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_variables_that_are_shown_are_those_that_the_recipe_reads(target: Target) -> None:
    shown = [match[1] for note in target.notes if (match := re.match(r"#: ([A-Z][A-Z0-9_]*) ", note))]
    assert len(shown) == len([note for note in target.notes if note.startswith("#: ")])
    assert sorted(shown) == sorted(list_variables(target.recipe))
    assert [note for note in target.notes if len(note) > MOST_NOTE_CHARACTERS] == []


def test_variables_are_found_in_conditions_loops_and_definitions() -> None:
    text = "$(RUNNER) $(if $(PART),--part $(PART)) $(foreach one,$(ENGINES),--engine $(one)) $(or $(N),10) $(HOME)"
    assert list_variables(text) == {"KEEP_GOING", "SLOWEST", "HOGS", "PART", "ENGINES", "N"}


def test_help_fits_a_screen() -> None:
    assert len([target for target in TARGETS if target.group in GROUPS]) <= MOST_DOCUMENTED


def test_help_lists_every_target_once_in_its_group() -> None:
    blocks = run_help().stdout.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == GROUPS
    listed = {block.splitlines()[0]: block.splitlines()[1:] for block in blocks}
    for group in GROUPS:
        expected = [f"make {target.name} {target.sentence}" for target in TARGETS if target.group == group]
        assert [re.sub(r"\s+", " ", line.strip()) for line in listed[group]] == expected


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_help_of_a_target_shows_its_notes_and_no_others(target: Target) -> None:
    expected = [f"{target.call}: {target.sentence}", *(f"  {note[3:]}" for note in target.notes)]
    members = [f"{one.call} {one.sentence}" for one in TARGETS if one.group == target.name]
    shown = run_help(f"T={target.name}").stdout.splitlines()
    assert shown[: len(expected)] == expected
    assert [re.sub(r"\s+", " ", line.strip()) for line in shown[len(expected) :]] == members


MEMBERS = [target for target in TARGETS if target.group in LISTS]


@pytest.mark.parametrize("target", MEMBERS, ids=lambda target: target.name)
def test_a_list_runs_its_member_with_the_variables_of_the_call(target: Target) -> None:
    dry = dry_run(target.group, f"{LISTS[target.group]}={target.short}", "SEED=17 4")
    assert dry.stdout == dry_run(target.name, "SEED=17 4").stdout
    assert target.name in dry.stdout or "$@" not in target.recipe


@pytest.mark.parametrize("name", ["bench", "test-long"])
def test_a_list_without_a_name_shows_what_there_is(name: str) -> None:
    assert run_make(name).stdout == run_help(f"T={name}").stdout


@pytest.mark.parametrize(("name", "variable"), LISTS.items(), ids=LISTS)
def test_a_name_that_a_list_has_not_is_refused_with_the_list(name: str, variable: str) -> None:
    process = run_make(name, f"{variable}=nothing")
    assert process.returncode != 0
    assert f"No {name} is named nothing: make help T={name} lists them all" in process.stderr


def test_help_of_a_target_that_is_not_there_fails_and_says_so() -> None:
    process = run_help("T=bench-nothing")
    assert process.returncode != 0
    assert "No target bench-nothing: make help lists them all" in process.stderr
