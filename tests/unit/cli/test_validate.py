"""Every problem of a deployment at once, with field, value and limit: the bad inputs, without a cluster."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_cli.deployment.validate import find_problems, find_tenant_problems, parse_engine
from r1plus_cli.documents import Document
from r1plus_cli.local import DEFAULT_FAMILY, SHIPPED_CATALOG, build_config, load_engines
from support.cli.command import run

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[3] / "examples"


def document(spec: Any, name: str = "credit") -> Document:
    """A deployment with this spec."""
    metadata: Json = {"name": name, "namespace": "team-credit"}
    body: Json = {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusDeployment", "metadata": metadata}
    return Document("cr.yaml", {**body, "spec": copy.deepcopy(spec)})


def problems(spec: Any, name: str = "credit") -> list[str]:
    """What validation says."""
    return find_problems(document(spec, name), load_engines(SHIPPED_CATALOG), build_config(DEFAULT_FAMILY))


def full(**spec: Any) -> Json:
    """The spec of a deployment of tier full."""
    return {"tier": "full", **spec}


VALID = {
    "only the tier": full(),
    "everything that is optional": {
        "tier": "lite",
        "engine": {"family": "smollm2", "precision": "Q8_0"},
        "batching": {"maxBatchSize": 4},
        "context": {"maxTokens": 512},
        "replicas": 0,
        "placement": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]},
        "accuracy": {"threshold": 1, "gate": "Observe", "probesPerMinute": 600},
        "access": {"namespaces": ["team-front"]},
    },
}


@pytest.mark.parametrize("spec", VALID.values(), ids=VALID.keys())
def test_accepted(spec: Json) -> None:
    assert problems(spec) == []


BATCH, MISSPELT = "spec.batching.maxBatchSize", full(placement={"tolerations": [{"opperator": "Exists"}]})
BAD = {
    "a missing tier": ({}, ["spec.tier: missing; it has no default"]),
    "no spec at all": (None, ["spec.tier: missing"]),
    "an unknown tier": ({"tier": "medium"}, ["spec.tier", "'medium'", "full"]),
    "an unknown field": (full(colour="red"), ["spec.colour: no such field; expected one of access, accuracy,"]),
    "a misspelt field": (full(acuracy={}), ["spec.acuracy: no such field; did you mean accuracy?"]),
    "an unknown field of a part": (
        full(engine={"name": "x"}),
        ["spec.engine.name: no such field; expected one of family, precision, version (got 'x')"],
    ),
    "an unknown field within a list": (
        MISSPELT,
        ["spec.placement.tolerations.0.opperator: no such field; did you mean operator?"],
    ),
    "a batch of 0": (full(batching={"maxBatchSize": 0}), [BATCH, "1", "0"]),
    "a negative batch": (full(batching={"maxBatchSize": -1}), [BATCH, "-1"]),
    "a batch of a million": (full(batching={"maxBatchSize": 1_000_000}), [BATCH, "1024", "1000000"]),
    "a threshold of 0": (full(accuracy={"threshold": 0}), ["spec.accuracy.threshold", "0"]),
    "a threshold of 1.5": (full(accuracy={"threshold": 1.5}), ["spec.accuracy.threshold", "1", "1.5"]),
    "a threshold in percent": (
        full(accuracy={"threshold": 98}),
        ["spec.accuracy.threshold: a share, so at most 1; did you mean 0.98? (got 98)"],
    ),
    "a precision as llama.cpp writes it": (
        full(engine={"precision": "F16"}),
        ["spec.engine: no engine of tier full", "precision F16 (did you mean FP16?)"],
    ),
    "a precision in lower case": (full(engine={"precision": "q4_1"}), ["precision q4_1 (did you mean Q4_1?)"]),
    "a precision unlike any": (full(engine={"precision": "INT3"}), ["precision INT3; the catalog has"]),
    "a context longer than the engine's": (
        full(context={"maxTokens": 1_000_000}),
        ["spec.context.maxTokens: 1000000 exceeds"],
    ),
    "a batch larger than the engine's": (full(batching={"maxBatchSize": 1000}), [f"{BATCH}: 1000 exceeds"]),
    "an engine that does not exist": (
        full(engine={"version": "9.9.9"}),
        ["spec.engine: no engine of tier full", "9.9.9", "the catalog has"],
    ),
}


@pytest.mark.parametrize(("spec", "words"), BAD.values(), ids=BAD.keys())
def test_refused(spec: Any, words: list[str]) -> None:
    (found,) = problems(spec)
    assert all(word in found for word in words), found


NAMES = {
    "41 characters": ("a" * 41, "41 characters, more than 40"),
    "a digit first": ("1credit", "'1credit' must be"),
    "an upper-case letter": ("Credit", "'Credit' must be"),
    "a hyphen last": ("credit-", "'credit-' must be"),
    "a newline last": ("credit\n", "must be lower-case letters"),
    "nothing": ("", "metadata.name: missing"),
}


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES.keys())
def test_names_refused(name: str, words: str) -> None:
    (found,) = problems(full(), name)
    assert words in found


def test_forty_characters_are_a_name() -> None:
    assert problems(full(), "a" * 40) == []


def test_all_problems_are_told_at_once() -> None:
    spec = {"tier": "medium", "batching": {"maxBatchSize": 0}, "accuracy": {"threshold": 2}, "colour": "red"}
    found = problems(spec, "A" * 50)
    assert len(found) == 6, found


def test_a_batch_and_a_context_that_the_engine_has_not_are_both_told() -> None:
    assert len(problems(full(batching={"maxBatchSize": 1000}, context={"maxTokens": 1_000_000}))) == 2


def engine(**changes: Any) -> Json:
    """An R1PlusEngine of the shipped catalog, changed."""
    text = (SHIPPED_CATALOG / "smollm2.yaml").read_text()
    body: Json = next(b for b in yaml.safe_load_all(text) if b["metadata"]["name"] == "smollm2-lite-q8-0")
    body["metadata"]["name"] = changes.pop("name", "bank-lite")
    body["spec"] |= changes
    return body


ENGINES: dict[str, tuple[Json, list[str]]] = {
    "a shipped one by another name": (engine(), []),
    "a name of 63": (engine(name="a" * 63), []),
    "a name of 64": (engine(name="a" * 64), ["metadata.name: 'aaaa"]),
    "a name that is a path": (engine(name="../x"), ["metadata.name: '../x' must be"]),
    "no name": (engine(name=""), ["metadata.name: missing"]),
    "two fields at once": (
        engine(tier="huge", batch={"best": 3, "max": 2}),
        ["spec.tier: Input should be", "spec.batch: batch.best must not exceed batch.max: 3 exceeds 2"],
    ),
}


@pytest.mark.parametrize(("body", "expected"), ENGINES.values(), ids=ENGINES.keys())
def test_an_engine_is_judged_as_its_crd_judges_it(body: Json, expected: list[str]) -> None:
    found = parse_engine(Document("engine.yaml", body))
    told = found if isinstance(found, list) else []
    assert len(told) == len(expected)
    assert all(line.startswith(start) for line, start in zip(told, expected, strict=True))


def deployed(spec: Json) -> Json:
    metadata = {"name": "credit", "namespace": "team-credit"}
    return {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusDeployment", "metadata": metadata, "spec": spec}


def validated(tmp_path: Path, *bodies: Json) -> tuple[int, str]:
    (tmp_path / "given.yaml").write_text(yaml.safe_dump_all(bodies))
    done = run("validate", "-f", tmp_path / "given.yaml")
    return done.exit_code, done.output


def test_an_engine_of_the_file_counts_for_its_deployments(tmp_path: Path) -> None:
    kind = {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusDeployment", "metadata": {"name": "credit"}}
    deployment = {**kind, "spec": {"tier": "lite", "engine": {"family": "bank"}}}
    status, told = validated(tmp_path, deployment, engine(family="bank"))
    assert status == 0 and "bank-lite: valid" in told and "default/credit: valid" in told
    status, told = validated(tmp_path, deployment, engine(family="other"))
    assert status == 1 and "no engine of tier lite with family bank" in told


def test_an_engine_that_is_wrong_ends_with_1(tmp_path: Path) -> None:
    status, told = validated(tmp_path, engine(tier="huge"))
    assert status == 1 and "bank-lite: 1 problem" in told


TENANTS: dict[str, tuple[str, Json, list[str]]] = {
    "of another name": ("tenant2", {}, ["metadata.name: 'tenant2' must be tenant"]),
    "whose admin would be everybody": (
        "tenant",
        {"admins": [{"kind": "Group", "name": "system:authenticated"}]},
        ["spec.admins.0", "system:authenticated"],
    ),
    "whose way out leads to the metadata service": (
        "tenant",
        {"egress": [{"cidr": "169.254.169.254/32", "ports": [80]}]},
        ["spec.egress.0", "169.254.169.254/32"],
    ),
    "with two problems": ("Tenant", {"egress": [{"ports": []}]}, ["metadata.name: 'Tenant'", "spec.egress.0.ports"]),
}


@pytest.mark.parametrize(("name", "spec", "words"), TENANTS.values(), ids=TENANTS.keys())
def test_a_tenant_is_refused(name: str, spec: Json, words: list[str]) -> None:
    metadata: Json = {"name": name, "namespace": "team-credit"}
    body: Json = {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusTenant", "metadata": metadata, "spec": spec}
    found = "; ".join(find_tenant_problems(Document("t.yaml", body)))
    assert [word for word in words if word not in found] == []


def test_the_examples_tenants_are_valid() -> None:
    result = run("validate", "-f", EXAMPLES / "tenants.yaml")
    assert (result.exit_code, result.output.count("valid")) == (0, 2)


@pytest.mark.parametrize("kind", ["R1PlusDeployment", "R1PlusTenant", "R1PlusEngine"])
def test_a_version_that_is_not_served_is_refused_with_the_one_that_is(tmp_path: Path, kind: str) -> None:
    name = "tenant" if kind == "R1PlusTenant" else "credit"
    spec = {"tier": "full"} if kind == "R1PlusDeployment" else {}
    body = {"apiVersion": "r1plus.ai/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    status, told = validated(tmp_path, body)
    assert status == 1
    assert "apiVersion: 'r1plus.ai/v1' is not supported; use r1plus.ai/v1alpha1" in told


def test_what_only_the_cluster_knows_is_said_of_what_is_valid(tmp_path: Path) -> None:
    spec = {"tier": "full", "placement": {"nodeSelector": {"pool": "gold"}}, "accuracy": {"suite": "bank-v1"}}
    status, told = validated(tmp_path, deployed(spec))
    assert status == 0
    assert "team-credit/credit: valid" in told
    assert "not checked offline: nodes: assumes one with pool=gold" in told
    assert "not checked offline: suite bank-v1: assumes a ConfigMap of namespace team-credit" in told


def tenant_of(namespace: str, **spec: Any) -> Json:
    metadata = {"name": "tenant", "namespace": namespace}
    return {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusTenant", "metadata": metadata, "spec": spec}


def test_a_deployment_is_held_to_the_tenant_of_the_file(tmp_path: Path) -> None:
    wants = deployed(
        {
            "tier": "full",
            "access": {"namespaces": ["team-evil"]},
            "placement": {"tolerations": [{"key": "gold", "operator": "Exists"}]},
        }
    )
    status, told = validated(tmp_path, wants, tenant_of("team-credit", callers={"namespaces": ["team-front"]}))
    assert status == 1
    assert "team-credit/credit: 2 problems" in told
    assert "spec.access.namespaces: team-evil: not among spec.callers.namespaces of R1PlusTenant tenant" in told
    assert "spec.placement.tolerations[0]: gold: R1PlusTenant tenant does not allow" in told
    placement = {"tolerations": [{"key": "gold", "operator": "Exists"}]}
    allows = tenant_of("team-credit", callers={"namespaces": ["team-evil"]}, placement=placement)
    status, told = validated(tmp_path, wants, allows)
    assert status == 0
    assert "not checked offline" not in told


def test_a_tenant_that_is_not_in_the_file_is_assumed_to_allow(tmp_path: Path) -> None:
    wants = deployed({"tier": "full", "access": {"namespaces": ["team-front"]}})
    status, told = validated(tmp_path, wants, tenant_of("team-other"))
    assert status == 0
    assert "not checked offline: R1PlusTenant tenant of team-credit: assumes that it allows callers team-front" in told
