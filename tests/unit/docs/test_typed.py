"""What people are told to type works when it is pasted: from the clone's root, with a PATH of which nothing is known."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer
from click import Command
from typer.core import TyperGroup
from typer.exceptions import TyperException

from devcluster.packages import PACKAGES
from e2e.target import BIN, looking_around, looking_in
from r1plus_cli.hints import runnable_hint
from r1plus_cli.main import app
from r1plus_contract.requests import Verb

ROOT = Path(__file__).parents[3]
FOLDERS = ("docs", "monitoring", "charts", "operator", "policies", "model_repo", "examples", "tests/e2e")
TOLD = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")))
    if path.suffix in (".md", ".py", ".txt", ".yaml") and path.name != "CHANGELOG.md"
)
PRINTED = (*looking_in(Path("/k")), *looking_around(Path("/k"), "http://p", "http://a"))
COMMANDS = sorted({line.strip() for line in PRINTED if line.startswith("  ")})


def test_nobody_is_told_to_type_uv() -> None:
    """It lies in a folder that is on the PATH of make alone."""
    assert len(TOLD) > 100
    told = [str(path.relative_to(ROOT)) for path in TOLD if re.search(r"\buv (run|pip)\b", path.read_text())]
    assert told == []


def list_commands(page: Path) -> list[str]:
    """Return the lines of a page's code blocks that name no language: those are to be typed."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [line for language, block in blocks if not language for line in block.splitlines() if line.strip()]


def test_what_the_readmes_show_begins_with_make_or_a_path() -> None:
    typed = [*list_commands(ROOT / "README.md"), *list_commands(ROOT / "docs" / "README.md")]
    assert len(typed) >= 11
    assert [
        line
        for line in typed
        if not re.match(rf"make (demo|test|down|quickstart|quickstart-down) |{BIN}/r1plus [a-z]+ ", line)
    ] == []


def list_words(command: Command) -> set[str]:
    """Return the options of a command, and the verbs below it."""
    options = {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}
    return options | (set(command.commands) if isinstance(command, TyperGroup) else set())


def list_wrong_words(line: str) -> list[str]:
    """Return the verbs and options of an `r1plus` command that the command line does not have."""
    line = re.sub(r'"[^"]*"', "TEXT", re.sub(r"\s#.*", "", line))
    here: Command = typer.main.get_command(app)
    for word in line.partition("r1plus ")[2].partition(" -- ")[0].split():
        if word.startswith("-") and word.partition("=")[0] not in list_words(here):
            return [word]
        if isinstance(here, TyperGroup) and not word.startswith("-"):
            if word not in here.commands:
                return [word]
            here = here.commands[word]
    return []


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_r1plus_on_a_page_exists_with_its_options(page: Path) -> None:
    typed = [line for line in list_commands(page) if re.match(r"(\.venv/bin/)?r1plus ", line)]
    wrong = {line: found for line in typed if (found := list_wrong_words(line))}
    assert wrong == {}


@pytest.mark.parametrize("page", (*PAGES, ROOT / "CONTRIBUTING.md"), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_module_and_target_on_a_page_exists(page: Path) -> None:
    modules = re.findall(r"python -m ([\w.]+)", "\n".join(list_commands(page)))
    targets = set(re.findall(r"(?:^|`)(?:\w+=\S+ )*make ([a-z][a-z0-9-]*)", page.read_text(), re.MULTILINE))
    there = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [name for name in modules if not importlib.util.find_spec(name)] == []
    assert targets - there == set()


def find_refusal(line: str) -> str:
    """Return why the command line's own parser refuses an `r1plus` command, without running it; empty: it does not."""
    words = shlex.split(line)[1:]
    here: Command = typer.main.get_command(app)
    while isinstance(here, TyperGroup) and words and words[0] in here.commands:
        here = here.commands[words.pop(0)]
    if isinstance(here, TyperGroup) and words and not words[0].startswith("-"):
        return f"{line}: {words[0]} is no command"
    try:
        here.make_context("r1plus", words)
    except TyperException as error:
        return f"{line}: {error}"
    return ""


@pytest.mark.parametrize(
    "line", ["r1plus suite verify", "r1plus ack NAME -n NAMESPACE", "r1plus validate -f", "r1plus asks credit"]
)
def test_a_command_that_the_parser_refuses_is_found(line: str) -> None:
    assert find_refusal(line)


@pytest.mark.parametrize("line", ["r1plus asks credit", "r1plus ask credit --shout x", "r1plus suite keygenerate"])
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert list_wrong_words(line)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_demo_says_to_type_is_there(command: str) -> None:
    program = command.split()[0]
    there = {"export", "make", f"{BIN}/kubectl", f"{BIN}/promtool"}  # the last two are put there as this is told
    installed = program == "amtool" and "prometheus-alertmanager" in PACKAGES
    assert program in there or (ROOT / program).exists() or installed


def test_every_verb_that_the_demo_names_exists() -> None:
    verbs = {command.name for command in app.registered_commands}
    assert {c.split()[1] for c in COMMANDS if c.startswith(f"{BIN}/r1plus")} <= verbs


def test_the_runbooks_say_once_where_the_command_comes_from() -> None:
    assert "## The command" in (ROOT / "monitoring" / "runbooks" / "README.md").read_text()


HINTS = {
    "from the clone's root": (".venv/bin/r1plus", ".venv/bin/r1plus status credit; see `.venv/bin/r1plus ack`"),
    "from elsewhere": ("/opt/r1/bin/r1plus", "/opt/r1/bin/r1plus status credit; see `/opt/r1/bin/r1plus ack`"),
    "within another program": ("pytest", "r1plus status credit; see `r1plus ack`"),
}


@pytest.mark.parametrize(("typed", "expected"), HINTS.values(), ids=HINTS.keys())
def test_hints_name_the_command_as_it_was_called(typed: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert runnable_hint("r1plus status credit; see `r1plus ack`", typed) == expected


def test_a_command_on_the_path_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "r1plus"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runnable_hint("r1plus ack", str(program)) == "r1plus ack"


def test_kubectl_is_named_where_it_lies_if_the_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    typed = str(tmp_path / "r1plus")
    assert runnable_hint("kubectl get pods", typed) == "kubectl get pods"
    (tmp_path / "kubectl").touch(mode=0o755)
    assert runnable_hint("kubectl get pods", typed) == f"{tmp_path}/kubectl get pods"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runnable_hint("kubectl get pods", typed) == "kubectl get pods"


@pytest.mark.parametrize(
    "text",
    [
        "http://x/r1plus status",
        "r1plus is a command",
        "r1plus serve runs there already",
        "helm install r1plus charts/x",
    ],
)
def test_what_is_no_command_stays(text: str) -> None:
    assert runnable_hint(text, "/opt/r1plus") == text


ACTIONS = "|".join(Verb)
RUNBOOKS = sorted(path for path in (ROOT / "monitoring" / "runbooks").glob("*.md") if path.name != "README.md")
REMEDIES = (*RUNBOOKS, ROOT / "docs" / "conditions.md")


@pytest.mark.parametrize("path", REMEDIES, ids=lambda path: path.stem)
def test_a_remedy_names_the_reason_that_the_command_needs(path: Path) -> None:
    told = re.findall(rf"`r1plus (?:{ACTIONS})\b[^`]*`", path.read_text())
    assert [command for command in told if "--reason" not in command and "--help" not in command] == []


@pytest.mark.parametrize("path", REMEDIES, ids=lambda path: path.stem)
def test_a_remedy_works_as_printed(path: Path) -> None:
    commands = re.findall(r"`(r1plus [^`]+)`", path.read_text())
    assert [refusal for command in commands if (refusal := find_refusal(command))] == []


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_needs_no_right_or_program_that_its_reader_may_lack(path: Path) -> None:
    """Policy `exec` keeps a tenant's admins out of scored pods; Kubernetes comes without metrics-server."""
    page = path.read_text()
    assert not re.search(r"kubectl (exec|attach|debug)\b", page)
    assert "kubectl top" not in page or "metrics-server" in page


SPEAKERS = ("operator/r1plus_operator/plan", "operator/r1plus_cli", "policies/r1plus_policies")
STATUS_SPEAKERS = (
    "operator/r1plus_operator/plan",
    "operator/r1plus_operator/observe",
    "policies/r1plus_policies",
)


def list_texts(path: Path) -> list[str]:
    """Return the string constants of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
    return [node.value for node in constants if isinstance(node.value, str)]


@pytest.mark.parametrize("folder", SPEAKERS)
def test_a_message_names_the_reason_that_the_command_needs(folder: str) -> None:
    texts = [(path, text) for path in (ROOT / folder).rglob("*.py") for text in list_texts(path)]
    assert [text for _, text in texts if "r1plus" in text]
    assert [f"{path.name}: {text}" for path, text in texts if re.search(rf"`r1plus ({ACTIONS})`", text)] == []


@pytest.mark.parametrize("folder", STATUS_SPEAKERS)
def test_a_command_in_a_status_works_as_printed(folder: str) -> None:
    texts = [text for path in (ROOT / folder).rglob("*.py") for text in list_texts(path)]
    commands = [command for text in texts for command in re.findall(r"`(r1plus [a-z][^`]*)`", text)]
    assert commands
    assert [refusal for command in commands if (refusal := find_refusal(command))] == []


def test_every_verb_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    verbs = {verb for verb in list_words(typer.main.get_command(app)) if not verb.startswith("-")}
    named = {verb for verb in verbs if runnable_hint(f"r1plus {verb} x", ".venv/bin/r1plus").startswith(".venv/bin/")}
    assert {"serve", "edge", "knowledge", "advise"} <= verbs
    assert verbs == named
