"""Bad input is refused at `kubectl apply`, by the real API server, with field, value and limit; good input gets defaults.

Structural schemas drop unknown fields in silence. It is kubectl that asks the server to refuse them
(`fieldValidation=Strict`, its default); the last tests show both, since a client that does not ask gets the silence.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.apiserver_only import ApiServer
from devcluster.toolchain import kubectl as kubectl_program
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.importing.model import SourceModel
from r1plus_model_repo.importing.package.manifest import ImportOptions, build_spec, render_manifest
from r1plus_model_repo.kv_shape import KvShape
from r1plus_operator.api import crd, kinds, rbac
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.manifests.engines import build_engine_object
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ApiError, ForbiddenError
from support.apiserver.manifests import Json, r1plus_deployment, user
from support.apiserver.rights import OPERATOR_NAMESPACE, account, grant
from support.apiserver.server import ROOT
from support.waiting import eventually

pytestmark = pytest.mark.apiserver

EXAMPLES = ROOT / "examples"
Kubectl = Callable[..., subprocess.CompletedProcess[str]]
FORTY = "a" * 40


@pytest.fixture(scope="module")
def kubectl(apiserver: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Runs kubectl as a cluster administrator, with an object on its standard input."""
    words = [str(kubectl_program()), f"--kubeconfig={apiserver.kubeconfig}"]
    words.append(f"--cache-dir={tmp_path_factory.mktemp('kubectl')}")

    def run(*more: str, obj: Json | None = None) -> subprocess.CompletedProcess[str]:
        text = json.dumps(obj) if obj is not None else None
        return subprocess.run([*words, *more], input=text, capture_output=True, text=True, check=False, timeout=250)

    return run


def refuses(kubectl: Kubectl, body: Json, said: list[str]) -> None:
    """kubectl does not apply it, and says why."""
    done = kubectl("apply", "-f", "-", obj=body)
    assert done.returncode != 0
    assert [words for words in said if words not in done.stderr] == [], done.stderr


def takes(kubectl: Kubectl, *words: str, obj: Json | None = None) -> str:
    """kubectl applies it in a dry run; what it prints."""
    done = kubectl("apply", "--dry-run=server", *words, obj=obj)
    assert done.returncode == 0, done.stderr
    return done.stdout


def spec_with_toleration(**fields: Any) -> Json:
    """A spec with one toleration."""
    return {"placement": {"tolerations": [fields]}}


SPECS: dict[str, tuple[Json | None, list[str]]] = {
    "no spec": (None, ["spec: Required value"]),
    "an unknown field below": ({"batching": {"maxBatchsize": 4}}, ['unknown field "spec.batching.maxBatchsize"']),
    "batch a million": (
        {"batching": {"maxBatchSize": 10**6}}, ["spec.batching.maxBatchSize", "1000000", "less than or equal to 1024"],
    ),
    "no probes": ({"accuracy": {"probesPerMinute": 0}}, ["spec.accuracy.probesPerMinute", "0", "equal to 1"]),
    "a context beyond any engine": (
        {"context": {"maxTokens": 2_000_000}}, ["spec.context.maxTokens", "2000000", "less than or equal to 1048576"],
    ),
    "a context of a word or two": (
        {"context": {"maxTokens": 2}}, ["spec.context.maxTokens", "2", "greater than or equal to 16"],
    ),
    "a version that is none": ({"engine": {"version": "newest"}}, ["spec.engine.version", "newest"]),
    "a breach that is neither told nor answered": (
        {"accuracy": {"onBreach": "Ignore"}}, ["spec.accuracy.onBreach", "Ignore", '"Alert", "Rollback"'],
    ),
    "a pin that is no flag": ({"rollout": {"pinned": "credit-0123456789"}}, ["spec.rollout.pinned", "boolean"]),
    "65 namespaces": ({"access": {"namespaces": [f"n{i}" for i in range(65)]}}, ["spec.access.namespaces", "65", "64"]),
    "a toleration without a key": (
        spec_with_toleration(effect="NoExecute"), ["spec.placement.tolerations[0]", "key is needed unless operator is Exists"],
    ),
    "a value where any will do": (
        spec_with_toleration(key="a", operator="Exists", value="b"),
        ["spec.placement.tolerations[0]", "value must be empty where operator is Exists"],
    ),
    "seconds of toleration without NoExecute": (
        spec_with_toleration(key="a", tolerationSeconds=5),
        ["spec.placement.tolerations[0]", "tolerationSeconds needs effect NoExecute"],
    ),
    "a node label that is none": (
        {"placement": {"nodeSelector": {"a/b/c": "d"}}},
        ["spec.placement.nodeSelector", "keys must have at most 253 characters and match"],
    ),
}  # fmt: skip
"""What kubectl says of the limits of each field. The classes of bad input are in `fuzz.bad_inputs`."""


@pytest.mark.parametrize(("spec", "said"), SPECS.values(), ids=SPECS)
def test_a_bad_spec_is_refused_with_field_value_and_limit(
    kubectl: Kubectl, namespace: str, spec: Json | None, said: list[str]
) -> None:
    body = r1plus_deployment(namespace=namespace, **(spec or {}))
    if spec is None:
        del body["spec"]
    refuses(kubectl, body, said)
    assert kubectl("-n", namespace, "get", "r1p", "-o", "name").stdout == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{FORTY}b", [f"{FORTY}b", "metadata.name", "at most 40 characters"]),
        ("1credit", ["1credit", "metadata.name", "must start with a letter"]),
        ("credit.full", ["credit.full", "metadata.name", "hold only a-z, 0-9 and '-'"]),
    ],
    ids=["a name of 41 characters", "a name that starts with a digit", "a name with a dot"],
)
def test_a_bad_name_is_refused_with_the_name_and_the_limit(
    kubectl: Kubectl, namespace: str, name: str, said: list[str]
) -> None:
    refuses(kubectl, r1plus_deployment(name, namespace), said)


GOOD: dict[str, tuple[str, Json]] = {
    "a tier alone": ("credit", {"tier": "full"}),
    "a name of exactly 40 characters": (FORTY, {"tier": "lite"}),
    "null where a field may be absent": ("a", {"tier": "edge", "engine": {"family": None}}),
    "every bound reached": ("credit", {"batching": {"maxBatchSize": 1024}, "context": {"maxTokens": 1_048_576}}),
    "accuracy in full": ("credit", {"accuracy": {"threshold": 1, "gate": "Observe", "suite": "own.suite-1"}}),
    "a rollback, and a pin": ("credit", {"accuracy": {"onBreach": "Rollback"}, "rollout": {"pinned": True}}),
    "scaled to zero on chosen nodes": ("credit", {"replicas": 0, "placement": {"nodeSelector": {"a/b": "c"}}}),
    "a toleration": ("credit", spec_with_toleration(key="gpu", operator="Exists")),
}


@pytest.mark.parametrize(("name", "spec"), GOOD.values(), ids=GOOD)
def test_a_good_spec_is_taken_and_the_models_read_what_the_server_made_of_it(
    kubectl: Kubectl, namespace: str, name: str, spec: Json
) -> None:
    spec = {"tier": "full", **spec}
    stored = json.loads(takes(kubectl, "-o", "json", "-f", "-", obj=r1plus_deployment(name, namespace, **spec)))["spec"]
    assert R1PlusDeploymentSpec.model_validate(stored) == R1PlusDeploymentSpec.model_validate(spec | _none(spec))
    assert stored["replicas"] == spec.get("replicas", 1)
    assert {"gate", "threshold", "probesPerMinute", "onBreach"} <= set(stored["accuracy"])


def _none(spec: Json) -> Json:
    """The model calls an absent engine what the server calls an engine of nulls."""
    return {"engine": {}} if spec.get("engine") == {"family": None} else {}


async def test_a_client_that_does_not_ask_for_strictness_loses_unknown_fields_in_silence(
    client: ApiClient, namespace: str
) -> None:
    made = await client.create(kinds.R1PLUS_DEPLOYMENT, r1plus_deployment(namespace=namespace, colour="red"))
    assert "colour" not in made["spec"]


async def test_a_user_cannot_write_a_status_along_with_a_spec(client: ApiClient, namespace: str) -> None:
    body = r1plus_deployment(namespace=namespace) | {"status": {"verdict": "Pass"}}
    assert (await client.create(kinds.R1PLUS_DEPLOYMENT, body))["status"] == {"observedGeneration": -1}


async def test_conditions_are_a_map_by_type(client: ApiClient, namespace: str) -> None:
    body = r1plus_deployment(namespace=namespace)
    await client.create(kinds.R1PLUS_DEPLOYMENT, body)
    condition = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": "2030-01-01T00:00:00Z"}
    del body["spec"]
    body["status"] = {"conditions": [condition, condition]}
    with pytest.raises(ApiError) as caught:
        await client.apply(kinds.R1PLUS_DEPLOYMENT, body, field_manager="test", subresource="status")
    assert '.status.conditions: duplicate entries for key [type="Ready"]' in str(caught.value)


ONE_REFERENCE = ["spec.reference", "exactly one of inheritedFrom, measured and claimedBy"]
GPU = ["requirements.gpu is required with backends tensorrtllm and tensorrt, and must be absent with openvino"]
WINDOW = ["architecture.window and globalLayers must be absent with backend openvino"]
ENGINES: dict[str, tuple[Callable[[Json], Any], list[str]]] = {
    "measured and inherited at once": (lambda spec: spec["reference"].update(inheritedFrom="another"), ONE_REFERENCE),
    "neither measured nor inherited": (lambda spec: spec["reference"].pop("measured"), ONE_REFERENCE),
    "a claim beside a measurement": (lambda spec: spec["reference"].update(claimedBy="us"), ONE_REFERENCE),
    "measured files that are not there": (
        lambda spec: spec.pop("artifact"),
        ["spec: Invalid value", "artifact is required unless reference.claimedBy is set"],
    ),
    "half an artifact": (lambda spec: spec["artifact"].pop("sha256"), ["spec.artifact.sha256: Required value"]),
    "a GPU backend without a GPU": (lambda spec: spec.update(backend="tensorrtllm"), GPU),
    "a KV cache that vLLM has not on CPU": (
        lambda spec: spec.update(backend="vllm", kvPrecision="FP8"),
        ["kvPrecision must be absent with backend vllm on CPU, whose KV cache has 32 bits"],
    ),
    "a KV cache that torch has not": (
        lambda spec: spec.update(backend="torch", kvPrecision="FP16"),
        ["kvPrecision must be absent with backend torch, whose KV cache has 32 bits"],
    ),
    "a GPU beside torch": (
        lambda spec: spec["requirements"].update(gpu={"count": 1}) or spec.update(backend="torch"),
        GPU,
    ),
    "a GPU beside a CPU backend": (lambda spec: spec["requirements"].update(gpu={"count": 1}), GPU),
    "a window that OpenVINO would not keep": (lambda spec: spec["architecture"].update(window=512), WINDOW),
    "global layers where all are": (lambda spec: spec["architecture"].update(globalLayers=0), WINDOW),
    "a KV cache that OpenVINO would not keep": (
        lambda spec: spec.update(kvPrecision="FP8"),
        ["kvPrecision must be FP16 with backend openvino"],
    ),
    "attention that no runtime does": (
        lambda spec: spec.update(backend="vllm", attention={"sparse": {"threshold": 0.9}}),
        ["attention is for the backend openvino; no other runtime here leaves tokens out by these settings"],
    ),
    "eviction of half a block": (
        lambda spec: spec.update(attention={"eviction": {"startTokens": 32, "recentTokens": 65, "maxTokens": 1024}}),
        ["spec.attention.eviction", "must be multiples of 32"],
    ),
    "half a GPU": (lambda spec: spec["requirements"].update(gpu={"count": 0.5}), ["spec.requirements.gpu.count"]),
    "an unknown field": (lambda spec: spec.update(colour="red"), ['unknown field "spec.colour"']),
}


@pytest.mark.parametrize(("spoil", "said"), ENGINES.values(), ids=ENGINES)
def test_a_bad_engine_is_refused(kubectl: Kubectl, spoil: Callable[[Json], Any], said: list[str]) -> None:
    body = build_engine_object(next(engine for engine in _shipped() if engine.name == "smollm2-full-f16"))
    spoil(body["spec"])
    body["metadata"]["name"] = "spoilt"
    refuses(kubectl, body, said)


@pytest.mark.parametrize("gpu", [None, {"count": 2}], ids=["on CPU", "on GPUs"])
def test_vllm_is_taken_with_and_without_a_gpu(kubectl: Kubectl, gpu: Json | None) -> None:
    body = build_engine_object(next(engine for engine in _shipped() if engine.name == "smollm2-full-f16"))
    body["spec"]["backend"] = "vllm"
    body["spec"]["requirements"] |= {"gpu": gpu} if gpu else {}
    body["metadata"]["name"] = "vllm"
    takes(kubectl, "-f", "-", obj=body)
    kubectl("delete", "r1plusengine", "vllm")


@pytest.fixture
def tenants(kubectl: Kubectl) -> Iterator[None]:
    """The examples' namespaces; what is deployed there goes again, since an operator of another test would see it."""
    done = kubectl("apply", "-f", str(EXAMPLES / "tenants.yaml"))
    assert done.returncode == 0, done.stderr
    yield
    for namespace in ("team-credit", "team-support"):
        kubectl("-n", namespace, "delete", "r1plusdeployments", "--all")


def test_the_shipped_engines_are_taken(kubectl: Kubectl) -> None:
    engines = [build_engine_object(engine) for engine in _shipped()]
    takes(kubectl, "-f", "-", obj={"apiVersion": "v1", "kind": "List", "items": engines})


@pytest.mark.parametrize("wish", [{}, {"inherited_from": "smollm2-full-f16"}], ids=["unmeasured", "inherited"])
def test_the_manifest_of_an_imported_engine_is_taken(kubectl: Kubectl, tmp_path: Path, wish: Json) -> None:
    model = SourceModel(tmp_path, (), KvShape(30, 3, 64), 8192, 134515008, "Q4_K_M", 10**8)
    spec = build_spec(
        ImportOptions("bank-lite", "lite", "bank", **wish), model, "0" * 64, f"{'long' * 100}.gguf, sha256 1"
    )
    (tmp_path / "engine.yaml").write_text(
        render_manifest("bank-lite", spec, {"file": "x: y #.gguf", "sha256": "0" * 64})
    )
    takes(kubectl, "-f", str(tmp_path / "engine.yaml"))


@pytest.mark.usefixtures("tenants")
def test_the_examples_are_taken_and_shown_with_the_columns_that_users_look_for(kubectl: Kubectl) -> None:
    done = kubectl("apply", "-f", str(EXAMPLES))
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = kubectl("get", "r1p", "-A").stdout.splitlines()
    assert header.split() == [
        "NAMESPACE",
        "NAME",
        "TIER",
        "ENGINE",
        "BATCH",
        "ACCURACY",
        "VERDICT",
        "READY",
        "REASON",
        "AGE",
    ]
    assert [row.split()[:3] for row in rows if row.startswith("team-")] == [
        ["team-credit", "credit", "full"],
        ["team-support", "assistant", "lite"],
        ["team-support", "triage", "edge"],
    ]
    stored = json.loads(kubectl("-n", "team-credit", "get", "r1p", "credit", "-o", "json").stdout)
    assert "engine" not in stored["spec"], "credit-full.yaml comes last in the folder, so it is what holds"


def _shipped() -> tuple[Any, ...]:
    return load_catalog(ROOT / "model_repo" / "r1plus_model_repo" / "catalog")


async def test_the_crd_hook_can_do_its_work_with_the_rights_of_the_table_and_no_more(
    apiserver: ApiServer, client: ApiClient
) -> None:
    hook_account = account(OPERATOR_NAMESPACE, "r1plus-operator-crds")
    await grant(client, "crd-hook", rbac.list_crd_hook_grants(), user(hook_account))
    async with ApiClient.from_kubeconfig(apiserver.kubeconfig_for(hook_account)) as hook:
        name = next(iter(crd.build_definitions().values()))["metadata"]["name"]
        await eventually(
            lambda: hook.get(crd.CRD, name), "the authoriser sees the new binding", retry_on=(ForbiddenError,)
        )
        await crd.apply(hook)
        foreign = yaml.safe_load(crd.render_yaml(crd.build_engine_definition()).replace("r1plusengine", "r1plusfake"))
        with pytest.raises(ForbiddenError):
            await hook.apply(crd.CRD, foreign, field_manager="test")
