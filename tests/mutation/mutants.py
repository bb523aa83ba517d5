"""Mutants of source files, and a sample of them that depends on the sources and a seed only.

The operators are mutmut's (numbers, strings, names, arguments, assignments, comparisons, arithmetic, boolean logic, `match`,
conditional expressions), plus one of ours that negates the condition of an `if`. Not mutated, because a survivor there says
nothing about the tests: docstrings, type annotations, imports, decorators, what is raised, log calls, strings with a space in
them (messages), `zip(strict=)`, `cast`, `Literal`, and the arguments of `len` and `isinstance`.
"""

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import OPERATORS_TYPE, mutation_operators

_DATA_OPERATORS = {"arg_removal", "string", "assignment", "dict_arguments"}
_NOISE_CALLS = {"cast", "len", "isinstance", "issubclass"}
_LOGGERS = {"log", "logger", "logging"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed copy of one module."""

    file: str
    """Relative to the root."""
    module: str
    line: int
    lines: range
    """Lines of the statement that is changed: a test that runs one of them may find the mutant."""
    is_import_time: bool
    """Whether the statement runs when the module is imported, not when a test calls a function."""
    line_hash: str
    operator: str
    occurrence: int
    """Its place among the mutants of the same file, line text and operator."""
    source: str
    diff: str

    @property
    def id(self) -> str:
        """Name that is the same in every tree with the same line."""
        return f"{self.file}:{self.line_hash}:{self.operator}:{self.occurrence}"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A mutant whose source is not written yet."""

    file: str
    line: int
    lines: range
    is_import_time: bool
    line_hash: str
    operator: str
    occurrence: int
    statement: int
    """Place in the module's body of what holds it."""
    original: cst.CSTNode
    changed: cst.CSTNode

    def rank(self, seed: int) -> str:
        """Return its place in the draw; it does not depend on other mutants."""
        name = f"{seed}:{self.file}:{self.line_hash}:{self.operator}:{self.occurrence}"
        return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    module: str
    text: str
    tree: cst.Module
    parts: Sequence[str]
    """What is before the first statement, each statement of the module, and what is after the last."""
    candidates: Sequence[_Candidate]

    def change(self, candidate: _Candidate) -> str:
        """Return the mutated source. Only the statement that changes is written again: whole modules take seconds."""
        statement = self.tree.body[candidate.statement].deep_replace(candidate.original, candidate.changed)
        assert isinstance(statement, cst.CSTNode)
        parts = list(self.parts)
        parts[candidate.statement + 1] = self.tree.code_for_node(statement)
        return "".join(parts)


def sample_mutants(root: Path, packages: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Return up to `count` mutants of the modules of `packages` (folders relative to `root`).

    Each module gets a share by its number of lines. At most one mutant comes from one operator at one line.
    """
    files = [file for package in packages for file in _read_package(root, package)]
    draws = {file.name: _draw(file, seed) for file in files}
    quotas = _share({file.name: len(file.text.splitlines()) for file in files if file.candidates}, count)
    chosen: list[Mutant] = []
    for file in files:
        chosen += [mutant for mutant, _ in zip(draws[file.name], range(quotas.get(file.name, 0)), strict=False)]
    # A module with fewer mutants than its share leaves the rest to the others.
    for file in files:
        chosen += [mutant for mutant, _ in zip(draws[file.name], range(count - len(chosen)), strict=False)]
    return chosen


def negate_condition(node: cst.If | cst.CompIf) -> Iterator[cst.CSTNode]:
    """Yield the `if` with its condition negated; mutmut removes a `not` by itself."""
    if not (isinstance(node.test, cst.UnaryOperation) and isinstance(node.test.operator, cst.Not)):
        test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=test))


_OPERATORS: OPERATORS_TYPE = [*mutation_operators, (cst.If, negate_condition), (cst.CompIf, negate_condition)]


def _read_package(root: Path, package: str) -> Iterator[_File]:
    for path in sorted((root / package).rglob("*.py")):
        # Alembic loads its versions by their paths: an import of the changed source would reach nothing.
        if path.parent.name == "versions" and path.parent.parent.name == "migrations":
            continue
        name = path.relative_to(root).as_posix()
        module = _name_module(path)
        text = path.read_text()
        wrapper = MetadataWrapper(cst.parse_module(text))
        tree, finder = wrapper.module, _CandidateFinder(name, text, wrapper)
        for finder.statement, statement in enumerate(tree.body):
            statement.visit(finder)
        before, after = (_write(tree, nodes) for nodes in (tree.header, tree.footer))
        parts = [before, *(tree.code_for_node(statement) for statement in tree.body), after]
        yield _File(name, module, text, tree, parts, finder.candidates)


def _name_module(path: Path) -> str:
    """Return the name by which a file is imported: that of its packages and its own."""
    outermost = next(folder for folder in path.parents if not (folder / "__init__.py").exists())
    return ".".join(path.relative_to(outermost).with_suffix("").parts).removesuffix(".__init__")


def _write(tree: cst.Module, nodes: Sequence[cst.CSTNode]) -> str:
    return "".join(tree.code_for_node(node) for node in nodes)


def _draw(file: _File, seed: int) -> Iterator[Mutant]:
    """Yield the mutants of a file in the order of the draw, without those that do not compile or change nothing.

    Every second one changes data (a string, an argument, an assignment); drawn alike, nearly all of them would.
    """
    by_rank = sorted(file.candidates, key=lambda candidate: candidate.rank(seed))
    data = [candidate for candidate in by_rank if candidate.operator in _DATA_OPERATORS]
    logic = [candidate for candidate in by_rank if candidate.operator not in _DATA_OPERATORS]
    seen: set[tuple[int, str]] = set()
    unchanged = ast.dump(ast.parse(file.text))
    for candidate in filter(None, chain.from_iterable(zip_longest(logic, data))):
        if (place := (candidate.line, candidate.operator)) in seen:
            continue
        source = file.change(candidate)
        try:
            compile(source, file.name, "exec", dont_inherit=True)
        except SyntaxError:
            continue
        if ast.dump(ast.parse(source)) == unchanged:
            continue
        seen.add(place)
        yield Mutant(
            file.name,
            file.module,
            candidate.line,
            candidate.lines,
            candidate.is_import_time,
            candidate.line_hash,
            candidate.operator,
            candidate.occurrence,
            source,
            _diff(file.text, source),
        )


def _share(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divide `count` by size: whole shares first, then one each for the largest remainders."""
    total = sum(sizes.values())
    shares = {name: count * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(count * sizes[name] % total), name))
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


class _CandidateFinder(cst.CSTVisitor):
    """Collects the mutants of one module, in the order of the text."""

    def __init__(self, file: str, text: str, wrapper: MetadataWrapper) -> None:
        super().__init__()
        self.candidates: list[_Candidate] = []
        self.statement = 0
        self._file = file
        self._hashes = [hashlib.sha256(line.strip().encode()).hexdigest()[:12] for line in text.splitlines()]
        self._positions = wrapper.resolve(PositionProvider)
        self._occurrences: Counter[tuple[str, str]] = Counter()
        self._statements: list[cst.CSTNode] = []
        self._function_bodies: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_noise(node):
            return False
        if isinstance(node, cst.SimpleStatementLine):
            self._statements.append(node)
        for kind, operator in _OPERATORS:
            if isinstance(node, kind):
                for changed in operator(node):
                    self._add(node, changed, operator.__name__.removeprefix("operator_"))
        if isinstance(node, cst.FunctionDef):
            # Defaults run at import; the body does not.
            node.params.visit(self)
            self._function_bodies.append(node.body)
            node.body.visit(self)
            self._function_bodies.pop()
            return False
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._statements and self._statements[-1] is original_node:
            self._statements.pop()

    def _add(self, node: cst.CSTNode, changed: cst.CSTNode, operator: str) -> None:
        if _changes_prose(node, changed) or (position := self._positions.get(node)) is None:
            return
        if not self._function_bodies and isinstance(node, cst.Assign) and isinstance(node.value, cst.Subscript):
            return  # an alias of a type
        line = position.start.line
        span = self._positions[self._statements[-1]] if self._statements else position
        line_hash = self._hashes[line - 1]
        occurrence = self._occurrences[line_hash, operator]
        self._occurrences[line_hash, operator] += 1
        self.candidates.append(
            _Candidate(
                self._file,
                line,
                range(span.start.line, span.end.line + 1),
                not self._function_bodies,
                line_hash,
                operator,
                occurrence,
                self.statement,
                node,
                changed,
            )
        )


def _is_noise(node: cst.CSTNode) -> bool:
    match node:
        case cst.Call():
            return _is_noise_call(node)
        case cst.SimpleString() | cst.ConcatenatedString() | cst.FormattedString():
            return _is_prose(node)
        case (
            # Types, imports, decorators, errors.
            (cst.Annotation() | cst.Import() | cst.ImportFrom() | cst.Decorator() | cst.Raise())
            # A docstring.
            | cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())
            | cst.Subscript(value=cst.Name(value="Literal" | "Annotated"))
            | cst.If(test=cst.Name(value="TYPE_CHECKING"))
            | cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))])
            | cst.Assign(value=cst.Call(func=cst.Name(value="TypeVar" | "NewType")))
            | cst.Assign(value=cst.Call(func=cst.Attribute(value=cst.Name(value="logging"))))
            # Of zip.
            | cst.Arg(keyword=cst.Name(value="strict"))
        ):
            return True
    return False


def _is_noise_call(call: cst.Call) -> bool:
    match call.func:
        case cst.Name(value=name):
            return name in _NOISE_CALLS
        case cst.Attribute(value=cst.Name(value=name)):
            return name in _LOGGERS
    return False


def _is_prose(node: cst.CSTNode) -> bool:
    match node:
        case cst.SimpleString():
            return " " in node.raw_value
        case cst.ConcatenatedString():
            return _is_prose(node.left) or _is_prose(node.right)
        case cst.FormattedString():
            return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in node.parts)
    return False


def _changes_prose(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    """Tell whether a message, or an argument that is not mutated either, is removed or replaced."""
    if isinstance(node, cst.Call) and isinstance(changed, cst.Call):
        return any(_is_noise(arg) or _is_prose(arg.value) for arg in _missing(node.args, changed.args))
    if isinstance(node, cst.Assign | cst.AnnAssign):
        return node.value is not None and _is_prose(node.value)
    return False


def _missing(before: Iterable[cst.Arg], after: Sequence[cst.Arg]) -> list[cst.Arg]:
    return [arg for arg in before if not any(arg is other for other in after)]
