"""Finding the rules of definitions and policies, dropping one, and telling which one refused."""

from typing import Any

import pytest
import yaml

from mutation.cel.__main__ import list_rules
from mutation.cel.rules import Rule, drop_rule, find_rules

Json = dict[str, Any]
DEFINITION: Json = yaml.safe_load("""
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  versions:
    - schema:
        openAPIV3Schema:
          x-kubernetes-validations:
            - {rule: size(self.metadata.name) <= 4, fieldPath: .metadata.name, message: is too long}
          properties:
            spec:
              properties:
                ways:
                  items:
                    x-kubernetes-validations:
                      - {rule: self.a != self.b, message: a must differ from b}
                      - {rule: self.a < 9, message: a is too large, messageExpression: "'a is too large: ' + string(self.a)"}
                labels:
                  additionalProperties:
                    x-kubernetes-validations: [{rule: "self != ''", message: is empty}]
""")
POLICY: Json = {
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "release-things"},
    "spec": {
        "validations": [{"expression": "a", "message": "no a"}, {"expression": "b", "messageExpression": "'no b'"}]
    },
}
NAME, DIFFERS, LARGE, EMPTY, FIRST, SECOND = find_rules([DEFINITION, POLICY, {"kind": "ConfigMap"}])


def test_each_rule_has_a_name_of_its_own_with_its_field() -> None:
    assert [rule.id for rule in (NAME, DIFFERS, LARGE, FIRST, SECOND)] == [
        "things.example.com metadata.name [0]",
        "things.example.com spec.ways[] [0]",
        "things.example.com spec.ways[] [1]",
        "release-things [0]",
        "release-things [1]",
    ]
    assert [rule.expression for rule in (EMPTY, SECOND)] == ["self != ''", "b"]
    assert [rule.message for rule in (FIRST, SECOND)] == ["no a", "no b"]


@pytest.mark.parametrize(
    ("rule", "text", "is_broken"),
    [
        (DIFFERS, "x is invalid: spec.ways[12]: Invalid value: a must differ from b", True),
        (DIFFERS, "x is invalid: [spec.labels: Invalid value: 1, spec.ways[0]: Invalid value: a must differ from b]", True),
        (DIFFERS, "x is invalid: spec.ways[0]: Invalid value: a is too large: 9", False),
        (DIFFERS, "x is invalid: spec.ways[0].from: Invalid value: a must differ from b", False),
        (DIFFERS, "x is invalid: spec.gateways[0]: Invalid value: a must differ from b", False),
        (LARGE, "x is invalid: spec.ways[0]: Invalid value: a is too large: 9", True),
        (EMPTY, "x is invalid: spec.labels.team: Invalid value: is empty", True),
        (NAME, "x is invalid: metadata.name: Invalid value: is too long", True),
        (NAME, "x is invalid: spec.metadata.name: Invalid value: is too long", False),
    ],
)  # fmt: skip
def test_a_refusal_names_the_rule_that_is_broken(rule: Rule, text: str, is_broken: bool) -> None:
    assert rule.is_broken_in(text) == is_broken


def test_a_rule_of_a_definition_goes_and_the_others_stay() -> None:
    changed = drop_rule(DEFINITION, DIFFERS)
    assert [rule.expression for rule in find_rules([changed])] == [
        "size(self.metadata.name) <= 4",
        "self.a < 9",
        "self != ''",
    ]
    assert find_rules([DEFINITION]) == [NAME, DIFFERS, LARGE, EMPTY], "the object itself is as it was"


def test_the_last_rule_of_a_list_goes_with_the_list() -> None:
    labels = drop_rule(DEFINITION, EMPTY)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert labels["properties"]["labels"] == {"additionalProperties": {}}


def test_a_rule_of_a_policy_is_met_by_everything_and_the_others_keep_their_numbers() -> None:
    assert [rule.expression for rule in find_rules([drop_rule(POLICY, FIRST)])] == ["true", "b"]


def test_all_rules_of_the_chart_are_found_under_names_of_their_own() -> None:
    rules = list_rules()
    owners = {rule.owner for rule in rules}
    assert len({rule.id for rule in rules}) == len(rules)
    assert {f"r1plus{kind}s.r1plus.ai" for kind in ("deployment", "engine", "tenant")} < owners
    assert {"r1plus-operator-children", "r1plus-operator-operator-reach", "fence.r1plus.ai"} < owners
