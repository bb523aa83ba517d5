"""The rules in CEL that refuse requests: those of the CustomResourceDefinitions and of the ValidatingAdmissionPolicies."""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Path = tuple[str | int, ...]

DEFINITION, POLICY = "CustomResourceDefinition", "ValidatingAdmissionPolicy"
_RULES = {DEFINITION: "x-kubernetes-validations", POLICY: "validations"}
_SCHEMA = "openAPIV3Schema"
_TEXT = re.compile(r"'((?:[^'\\]|\\.)*)'")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and where it is in its object."""

    kind: str
    """DEFINITION or POLICY."""
    owner: str
    """Name of the definition or of the policy."""
    path: Path
    """Keys and indexes that lead to the list of rules in the object."""
    index: int
    expression: str
    message: str
    """What a refusal says; of a message that is computed, the longest text in it."""
    field: str = ""
    """Of a definition's rule: the field that a refusal names, as a regular expression."""

    @property
    def id(self) -> str:
        """Name for people: of which object, at which field, the how manieth."""
        field = self.field.replace("\\", "").replace("[d+]", "[]") if self.kind == DEFINITION else ""
        return f"{self.owner}{' ' * bool(field)}{field} [{self.index}]"

    def is_broken_in(self, text: str) -> bool:
        """Return whether a refusal by a definition's schema says that this rule is not met."""
        words = re.escape(self.message)
        return (
            re.search(f"(?:^|[\\s\\[:,]){self.field}: (?:Invalid value|Forbidden|Required value)[^\n]*{words}", text)
            is not None
        )


def find_rules(objects: Iterable[Json]) -> list[Rule]:
    """Return the rules of these objects; other kinds have none."""
    return [rule for body in objects if body["kind"] in _RULES for rule in _find_rules_of(body)]


def _find_rules_of(body: Json) -> Iterator[Rule]:
    kind, owner = body["kind"], body["metadata"]["name"]
    for path, rules in _walk(body["spec"], _RULES[kind], ("spec",)):
        for index, rule in enumerate(rules):
            expression = rule["rule" if kind == DEFINITION else "expression"]
            field = _field_of(path, rule) if kind == DEFINITION else ""
            yield Rule(kind, owner, path, index, expression, _message_of(rule), field)


def _message_of(rule: Json) -> str:
    texts = _TEXT.findall(rule.get("messageExpression", ""))
    return str(rule.get("message") or max(texts, key=len, default="").replace("\\'", "'"))


def _walk(node: Any, key: str, path: Path) -> Iterator[tuple[Path, list[Json]]]:
    """Yield each list under `key`, however deep, with the path to it."""
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == key and isinstance(inner, list):
                yield (*path, name), inner
            else:
                yield from _walk(inner, key, (*path, name))
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _walk(inner, key, (*path, number))


def _field_of(path: Path, rule: Json) -> str:
    """Return what a refusal calls the field, as a regular expression."""
    steps = list(path[path.index(_SCHEMA) + 1 : -1])
    found = ""
    while steps:
        match steps.pop(0):
            case "properties":
                found += rf"\.{steps.pop(0)}" if found else str(steps.pop(0))
            case "items":
                found += r"\[\d+\]"
            case "additionalProperties":
                found += r"[.\[][^:]+"
    pointed = rule.get("fieldPath", "")
    return (found + re.escape(pointed)).removeprefix(r"\.") or "<nil>"


def drop_rule(body: Json, rule: Rule) -> Json:
    """Return a copy of the object without the rule: of a policy, whose rules are counted, with one that is always met."""
    changed = copy.deepcopy(body)
    *parents, key = rule.path
    place: Any = changed
    for step in parents:
        place = place[step]
    if rule.kind == POLICY:
        place[key][rule.index]["expression"] = "true"
    else:
        del place[key][rule.index]
        if not place[key]:
            del place[key]
    return changed
