"""The classes of bad input, each with its cases: refused at admission, taken and served, or without a field to be in.

`test_bad_input` sends every case to the real API server, and every one that is taken through the real operator. A class
that the schema gives no room is named with the reason, and shown to be an unknown field: when the field comes, so must
its cases.
"""

import json
from typing import Any

from fuzz import tenant_inputs
from fuzz.cases import POLICIES, Case, NoRoom, Refused, Taken
from fuzz.judges import ENGINE
from r1plus_contract import names

Json = dict[str, Any]


def cr(spec: Any, name: str = "bad", **metadata: Any) -> Json:
    """An R1PlusDeployment as a user writes it."""
    return {"apiVersion": names.API_VERSION, "kind": names.KIND_DEPLOYMENT, "metadata": {"name": name, **metadata}, "spec": spec}  # fmt: skip


def full(name: str = "bad", metadata: Json | None = None, **fields: Any) -> Json:
    """One of tier full, with these fields beside it."""
    return cr({"tier": "full", **fields}, name, **(metadata or {}))


def engine(name: str, **changes: Any) -> Json:
    """An R1PlusEngine of a family of its own; `artifact_image="..."` sets `spec.artifact.image`, None takes away."""
    spec = json.loads(json.dumps(ENGINE)) | {"family": name}
    spec["reference"] = {"suite": "smollm2-full-v1", "measured": {"items": 211, "correctAtBatch1": 211, "correctAtBatch": 211}}  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split("_")
        place = spec
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return {"apiVersion": names.API_VERSION, "kind": names.KIND_ENGINE, "metadata": {"name": name}, "spec": spec}


def embedding_engine(name: str, **fields: Any) -> Json:
    """An R1PlusEngine of kind embedding, with these fields besides; None takes one away."""
    spec = {
        "kind": "embedding",
        **{key: ENGINE[key] for key in ("version", "precision", "backend", "artifact", "requirements")},
    }
    spec |= {"family": name, "embedding": {"dimensions": 384, "mostTokens": 256, "parameters": 1}, **fields}
    kept = {key: value for key, value in spec.items() if value is not None}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND_ENGINE, "metadata": {"name": name}, "spec": kept}


def distill(name: str = "bad", *, build: Json | None = None, **fields: Any) -> Json:
    """An R1PlusEngine that is distilled, with these fields of `spec.build.distill`; `build` adds to spec.build."""
    terms = {"layers": 24, "memory": "4Gi", "storage": "4Gi", **fields}
    return engine(name, build={"distill": {key: one for key, one in terms.items() if one is not None}, **(build or {})})


def archive(url: str) -> Json:
    """`spec.artifact` of an engine that is fetched from there."""
    return {"archive": {"url": url, "sha256": "0" * 64, "size": "1Gi"}, "sha256": "0" * 64}


def _raw(spec: str) -> str:
    """A deployment whose spec is JSON text, for what no parser would hand on."""
    head = json.dumps(cr(None))[: -len("null}")]
    return head + spec + "}"


def _nested(depth: int) -> str:
    return '{"tier":"full","colour":' + '{"a":' * depth + "1" + "}" * depth + "}"


LABEL = "should match"
TYPES: dict[str, tuple[Case, ...]] = {
    "missing required": (Refused(cr({}), ("spec.tier: Required value",)),),
    "null": (
        Refused(cr({"tier": None}), ("spec.tier: Required value",)),
        Refused(full(access={"namespaces": [None]}), ("spec.access.namespaces[0]", "null")),
        Refused(full(accuracy={"suiteKeys": [None]}), ("spec.accuracy.suiteKeys[0]", "null")),
        Taken(full("null", replicas=None, accuracy=None, placement={"nodeSelector": None})),
        Taken(full("nulls", accuracy={"onBreach": None}, rollout={"pinned": None})),
    ),
    "wrong type": (
        Refused(full(accuracy=[]), ("spec.accuracy", "object")),
        Refused(cr("full"), ("spec", "object")),
        Refused(full(access={"namespaces": "team-b"}), ("spec.access.namespaces", "array")),
        Refused(full(accuracy={"suiteKeys": "A" * 43 + "="}), ("spec.accuracy.suiteKeys", "array")),
    ),
    "int as string": (Refused(full(batching={"maxBatchSize": "4"}), ("spec.batching.maxBatchSize", "integer", "string")),),
    "float batch": (
        Refused(full(batching={"maxBatchSize": 1.5}), ("spec.batching.maxBatchSize", "integer")),
        Refused(engine("bad", batch_best=1.0), ("spec.batch", "expected int")),
        Taken(full("float", batching={"maxBatchSize": 4.0})),
    ),
    "bool-as-yes": (
        Refused(full(replicas=True), ("spec.replicas", "integer", "boolean")),
        Refused(full(accuracy={"threshold": True}), ("spec.accuracy.threshold", "number", "boolean")),
        Refused(full(accuracy={"gate": "yes"}), ("spec.accuracy.gate", '"yes"', '"Enforce", "Observe"')),
        Refused(full(accuracy={"allowLower": "yes"}), ("spec.accuracy.allowLower", "boolean", "string")),
        Refused(full(accuracy={"onBreach": True}), ("spec.accuracy.onBreach", "string", "boolean")),
        Refused(full(rollout={"pinned": "yes"}), ("spec.rollout.pinned", "boolean", "string")),
        Refused(full(rollout={"pinned": 1}), ("spec.rollout.pinned", "boolean", "integer")),
        Taken(full("pinned", rollout={"pinned": True})),
    ),
    "empty object": (
        Taken(full("empty", engine={}, batching={}, context={}, placement={}, accuracy={}, access={})),
        Refused(engine("bad", reference={}), ("spec.reference.suite: Required value",)),
    ),
    "empty list": (Taken(full("emptylist", placement={"tolerations": []}, access={"namespaces": []})),),
    "empty string": (
        Refused(cr({"tier": ""}), ("spec.tier", '""', '"full", "lite", "edge"')),
        Refused(full(accuracy={"onBreach": ""}), ("spec.accuracy.onBreach", '""', '"Alert", "Rollback"')),
        Refused(full(accuracy={"suite": ""}), ("spec.accuracy.suite", "at least 1 chars long")),
        Refused(full(placement={"nodeSelector": {"": "a"}}), ("spec.placement.nodeSelector", "keys must")),
    ),
    "unknown field": (
        Refused(full(colour="red"), ('unknown field "spec.colour"',)),
        Refused(full(colour=None), ('unknown field "spec.colour"',)),
        Refused(full(batching={"max_batch_size": 4}), ('unknown field "spec.batching.max_batch_size"',)),
    ),
    "duplicate key": (Refused(_raw('{"tier":"full","tier":"lite"}'), ('duplicate field "spec.tier"',)),),
    "deep nesting": (
        Refused(_raw(_nested(500)), ('unknown field "spec.colour"',)),
        Refused(_raw(_nested(20_000)), ("exceeded max depth",)),
    ),
    "object >1 MiB": (
        Refused(full(accuracy={"suite": "a" * 2**20}), ("spec.accuracy.suite", "63")),
        Refused(full(accuracy={"suiteKeys": ["A" * 43 + "="] * 20_000}), ("spec.accuracy.suiteKeys", "8")),
        Refused(full(accuracy={"suiteKeys": ["A" * 2**20]}), ("spec.accuracy.suiteKeys[0]", "44")),
        # The server reads as much as its limit. Of a larger body a part would stay unsent, and Python 3.11 may then leave a
        # socket open that fails a later test.
        Refused(full(accuracy={"suite": "a" * 3145728}), ("limit is 3145728",)),
    ),
    "256 KiB annotations": (
        Refused(full(metadata={"annotations": {"a": "x" * 2**18}}), ("metadata.annotations", "262144")),
        Taken(full("annotated", {"annotations": {"a": "x" * 15_000}})),
    ),
}  # fmt: skip

NUMBERS: dict[str, tuple[Case, ...]] = {
    "0": (
        Refused(full(batching={"maxBatchSize": 0}), ("spec.batching.maxBatchSize", "0", "greater than or equal to 1")),
        Refused(full(accuracy={"threshold": 0}), ("spec.accuracy.threshold", "0", "greater than 0")),
    ),
    "-1": (
        Refused(full(batching={"maxBatchSize": -1}), ("spec.batching.maxBatchSize", "-1", "greater than or equal to 1")),
        Refused(full(replicas=-1), ("spec.replicas", "-1", "greater than or equal to 0")),
    ),
    "2^31": (
        Refused(full(context={"maxTokens": 2**31}), ("spec.context.maxTokens", "2147483648", "less than or equal to 1048576")),
        Refused(
            full(placement={"tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 2**31}]}),
            ("spec.placement.tolerations[0].tolerationSeconds", "2147483648", "less than or equal to 2147483647"),
        ),
    ),
    "2^63": (Refused(full(replicas=2**63), ("spec.replicas", "integer")),),
    "1e309": (Refused(_raw('{"tier":"full","accuracy":{"threshold":1e309}}'), ("1e309",)),),
    "NaN string": (
        Refused(full(accuracy={"threshold": "NaN"}), ("spec.accuracy.threshold", "number", "string")),
        Refused(_raw('{"tier":"full","accuracy":{"threshold":NaN}}'), ("invalid character 'N'",)),
    ),
    "threshold <0": (Refused(full(accuracy={"threshold": -0.5}), ("spec.accuracy.threshold", "-0.5", "greater than 0")),),
    "threshold >1": (
        Refused(full(accuracy={"threshold": 1.5}), ("spec.accuracy.threshold", "1.5", "less than or equal to 1")),
        Taken(full("threshold", accuracy={"threshold": 1})),
    ),
    "threshold equal warn=crit": (NoRoom("there is one threshold, which gate and alert share", "accuracy.warning"),),
    "threshold inverted": (
        NoRoom("there is one threshold, which gate and alert share", "accuracy.critical"),
        Refused(engine("bad", batch_best=64, batch_max=32), ("spec.batch", "batch.best must not exceed batch.max")),
        Refused(
            engine("bad", reference_measured={"items": 9, "correctAtBatch1": 10, "correctAtBatch": 9}),
            ("spec.reference.measured", "must not exceed items"),
        ),
    ),
    "batch >engine max": (
        Taken(
            full("batch", batching={"maxBatchSize": 1024}),
            ("CapacityFits", "False", "BatchTooLarge"), "1024 exceeds 32, the engine's largest batch", POLICIES,
        ),
    ),
    "batch not multiple": (Taken(full("seven", batching={"maxBatchSize": 7})),),
    "replicas 0": (Taken(full("zero", replicas=0), ("Progressing", "False", "Blocked"), "spec.replicas: 0"),),
    "replicas 10^6": (Refused(full(replicas=10**6), ("spec.replicas", "1000000", "less than or equal to 100")),),
}  # fmt: skip

DISTILL = "spec.build.distill"
DISTILLATION: tuple[Case, ...] = (
    Refused(engine("bad", build={}), ("spec.build", "build needs exactly one of maxNumTokens and distill")),
    Refused(distill(build={"maxNumTokens": 64}), ("spec.build", "build needs exactly one of maxNumTokens and distill")),
    Refused(distill(memory=None), (f"{DISTILL}.memory: Required value",)),
    Refused(distill(storage=None), (f"{DISTILL}.storage: Required value",)),
    Refused(distill(memory="4 GB"), (f"{DISTILL}.memory", '"4 GB"', LABEL)),
    Refused(distill(cpu="0"), (f"{DISTILL}.cpu", '"0"', LABEL)),
    Refused(distill(layers=0), (f"{DISTILL}.layers", "0", "greater than or equal to 1")),
    Refused(distill(temperature=0), (DISTILL, "temperature must be from 0.1 to 100")),
    Refused(distill(temperature=0.05), (f"{DISTILL}.temperature", "0.05", "greater than or equal to 0.1")),
    Refused(distill(learningRate=0), (DISTILL, "learningRate from 1e-8 to 1")),
    Refused(distill(temperature="3"), (f"{DISTILL}.temperature", "number", "string")),
    Refused(distill(hardWeight=1.5), (f"{DISTILL}.hardWeight", "1.5", "less than or equal to 1")),
    Refused(distill(steps=0), (f"{DISTILL}.steps", "0", "greater than or equal to 1")),
    Refused(distill(steps=10**7), (f"{DISTILL}.steps", "10000000", "less than or equal to 1000000")),
    Refused(distill(batch=0), (f"{DISTILL}.batch", "0", "greater than or equal to 1")),
    Refused(distill(length=4), (f"{DISTILL}.length", "4", "greater than or equal to 8")),
    Refused(distill(top=0), (f"{DISTILL}.top", "0", "greater than or equal to 1")),
    Refused(distill(learningRate=2), (f"{DISTILL}.learningRate", "2", "less than or equal to 1")),
    Refused(distill(trainingPrecision="fp8"), (f"{DISTILL}.trainingPrecision", '"fp8"', '"float32", "bfloat16"')),
    Refused(distill(seed=-1), (f"{DISTILL}.seed", "-1", "greater than or equal to 0")),
    Refused(distill(runtimeRef="torch", numNodes=2), (f"{DISTILL}.runtimeRef", "object", "string")),
    Refused(distill(runtimeRef={}, numNodes=2), (f"{DISTILL}.runtimeRef.name: Required value",)),
    Refused(distill(runtimeRef={"name": "A b"}, numNodes=2), (f"{DISTILL}.runtimeRef.name", '"A b"', LABEL)),
    Refused(
        distill(runtimeRef={"name": "torch", "kind": "Runtime"}, numNodes=2),
        (f"{DISTILL}.runtimeRef.kind", '"Runtime"', '"ClusterTrainingRuntime", "TrainingRuntime"'),
    ),
    Refused(distill(runtimeRef={"name": "torch"}), (DISTILL, "runtimeRef and numNodes go together")),
    Refused(distill(numNodes=2), (DISTILL, "runtimeRef and numNodes go together")),
    Refused(distill(runtimeRef={"name": "torch"}, numNodes=1), (f"{DISTILL}.numNodes", "1", "greater than or equal to 2")),
    Refused(distill(runtimeRef={"name": "torch"}, numNodes=65), (f"{DISTILL}.numNodes", "65", "less than or equal to 64")),
    Refused(
        engine("bad", backend="tensorrtllm", requirements_gpu={"count": 1}, build=distill()["spec"]["build"]),
        ("spec", "build.distill is for the backends openvino and vllm"),
    ),
    Refused(engine("bad", build={"maxNumTokens": 64}), ("spec", "build.maxNumTokens is for the backends tensorrtllm and tensorrt")),
    Refused(
        engine("bad", build=distill()["spec"]["build"], artifact=None, reference={"suite": "s", "claimedBy": "nobody"}),
        ("spec", "build.distill needs artifact"),
    ),
    Taken(distill("distilled"), ("EngineReady", "False", "ConfigRefused"), "24 differs from spec.architecture.layers, 1", POLICIES),
    Taken(
        distill("untrained", layers=None), ("EngineReady", "False", "EngineNotDelivered"),
        "set the chart's images.trainer", POLICIES,
    ),
)  # fmt: skip

QUANTITIES: dict[str, tuple[Case, ...]] = {
    "1x": (Refused(engine("bad", requirements_weightsMemory="1x"), ("spec.requirements.weightsMemory", '"1x"', LABEL)),),
    "-1Gi": (Refused(engine("bad", requirements_runtimeMemory="-1Gi"), ("spec.requirements.runtimeMemory", '"-1Gi"', LABEL)),),
    "request>limit": (
        Refused(
            engine("bad", requirements_cpu="500m", requirements_cpuRequest="2"),
            ("spec.requirements", "cpuRequest must not exceed cpu: 2 exceeds 500m"),
        ),
        Refused(engine("bad", requirements_cpu="50m"), ("spec.requirements", "100m exceeds 50m")),
    ),
    "fractional GPU": (
        Refused(engine("bad", backend="vllm", requirements_gpu={"count": 0.5}), ("spec.requirements.gpu.count", "integer")),
        Refused(engine("bad", backend="vllm", requirements_gpu={"count": 0}), ("spec.requirements.gpu.count", "greater than or equal to 1")),
        *DISTILLATION,
        Refused(engine("bad", backend="tensorrt"), ("spec", "requirements.gpu is required with backends tensorrtllm and tensorrt")),
        Refused(engine("bad", backend="tensorrtllm", requirements_gpu={"count": 1}), ("spec", "a built artifact needs requirements.gpu.products")),
        Refused(
            engine("bad", backend="tensorrtllm", requirements_gpu={"count": 2}, build={"maxNumTokens": 64}),
            ("spec", "build.maxNumTokens needs requirements.gpu.count to be 1"),
        ),
        Refused(engine("bad", backend="vllm", kvPrecision="FP16"), ("spec", "kvPrecision must be absent with backend vllm on CPU")),
        Refused(engine("bad", backend="torch", kvPrecision="FP16"), ("spec", "kvPrecision must be absent with backend torch")),
        Taken(
            engine("vllm-on-cpu", backend="vllm"), ("EngineReady", "False", "RuntimeNotServed"),
            "needs the backend vllm on CPU (spec.requirements has no gpu)", POLICIES,
        ),
        Refused(engine("bad", architecture_window=512), ("spec", "architecture.window and globalLayers must be absent with backend openvino")),
        Refused(engine("bad", architecture_globalLayers=0), ("spec", "architecture.window and globalLayers must be absent with backend openvino")),
        Refused(engine("bad", kvPrecision="INT8"), ("spec", "kvPrecision must be FP16 with backend openvino")),
        Refused(engine("bad", requirements_gpu={"count": 1}), ("spec", "must be absent with openvino")),
        Refused(engine("bad", backend="vllm", attention={"sparse": {"threshold": 0.9}}), ("spec", "attention is for the backend openvino")),
        Refused(engine("bad", attention={}), ("spec.attention", "attention needs sparse, eviction or both")),
        Refused(engine("bad", attention={"sparse": {"threshold": 1}}), ("spec.attention.sparse", "threshold must be from 0.1 to 0.99")),
        Refused(engine("bad", attention={"sparse": {"threshold": 0}}), ("spec.attention.sparse", "threshold must be from 0.1 to 0.99")),
        Refused(engine("bad", attention={"sparse": {"threshold": 0.995}}), ("spec.attention.sparse.threshold", "less than or equal to 0.99")),
        Refused(engine("bad", attention={"sparse": {"threshold": 0.05}}), ("spec.attention.sparse.threshold", "greater than or equal to 0.1")),
        Refused(engine("bad", attention={"sparse": {}}), ("spec.attention.sparse.threshold: Required value",)),
        Refused(engine("bad", attention={"eviction": {"startTokens": 32, "recentTokens": 65, "maxTokens": 1024}}), ("spec.attention.eviction", "must be multiples of 32")),
        Refused(engine("bad", attention={"eviction": {"startTokens": 32, "recentTokens": 992, "maxTokens": 1024}}), ("spec.attention.eviction", "maxTokens must exceed startTokens + recentTokens")),
        Refused(engine("bad", attention={"eviction": {"startTokens": 0, "recentTokens": 64, "maxTokens": 1024}}), ("spec.attention.eviction.startTokens", "greater than or equal to 32")),
        Refused(engine("bad", attention={"eviction": {"startTokens": 32.0, "recentTokens": 64, "maxTokens": 1024}}), ("spec.attention.eviction",)),
        Refused(embedding_engine("bad", attention={"sparse": {"threshold": 0.9}}), ("spec.attention", "must be absent with kind embedding")),
        Taken(engine("evicting", attention={"sparse": {"threshold": 0.9}, "eviction": {"startTokens": 32, "recentTokens": 64, "maxTokens": 1024}})),
        Refused(engine("bad", kind="chat"), ("spec.kind", '"chat"', '"generation", "embedding"')),
        Refused(engine("bad", kind="embedding"), ("spec.embedding", "is required with kind embedding")),
        Refused(engine("bad", tier=None), ("spec.tier", "tier is required, unless kind is embedding")),
        Refused(engine("bad", reference=None), ("spec.reference", "reference is required, unless kind is embedding")),
        Refused(engine("bad", architecture=None), ("spec.architecture", "architecture is required, unless kind is embedding")),
        Refused(engine("bad", batch=None), ("spec.batch", "batch is required, unless kind is embedding")),
        Refused(engine("bad", reference_claimedBy="somebody"), ("spec.reference", "exactly one of inheritedFrom, measured and claimedBy")),
        Refused(engine("bad", artifact_image=None), ("spec.artifact", "artifact needs exactly one of image and archive")),
        Refused(embedding_engine("bad", tier="full"), ("spec.tier", "must be absent with kind embedding")),
        Refused(embedding_engine("bad", batch={"best": 1, "max": 1}), ("spec.batch", "must be absent with kind embedding")),
        Refused(embedding_engine("bad", architecture=ENGINE["architecture"]), ("spec.architecture", "architecture must be absent with kind embedding")),
        Refused(embedding_engine("bad", reference=ENGINE["reference"]), ("spec.reference", "reference must be absent with kind embedding")),
        Refused(embedding_engine("bad", kvPrecision="FP16"), ("spec.kvPrecision", "kvPrecision must be absent with kind embedding")),
        Refused(embedding_engine("bad", build={"maxNumTokens": 64}), ("spec.build", "build must be absent with kind embedding")),
        Refused(embedding_engine("bad", kind=None), ("spec.embedding", "must be absent otherwise")),
        Refused(embedding_engine("bad", embedding=None), ("spec.embedding", "is required with kind embedding")),
        Refused(embedding_engine("bad", artifact=None), ("spec.artifact", "is required with kind embedding")),
        Refused(embedding_engine("bad", artifact=archive("https://artifacts.bank.example/e.tar")), ("spec.artifact", "with an image is required")),
        Refused(embedding_engine("bad", backend="vllm"), ("spec.backend", "must be openvino with kind embedding")),
        Refused(embedding_engine("bad", embedding={"dimensions": 0, "mostTokens": 256, "parameters": 1}), ("spec.embedding.dimensions", "greater than or equal to 1")),
        Refused(embedding_engine("bad", embedding={"dimensions": 1, "mostTokens": 9000, "parameters": 1}), ("spec.embedding.mostTokens", "less than or equal to 8192")),
        Taken(engine("cores", requirements_cpu="2000m", requirements_cpuRequest="0.500")),
    ),
    "memory < engine need": (
        NoRoom("memory follows from weights, batch and context", "resources"),
        Taken(
            engine("huge", requirements_weightsMemory="900Ti"),
            ("CapacityFits", "False", "NoNodeFits"), "921600.00 GiB", POLICIES,
        ),
    ),
    "storage shrink": (NoRoom("nothing is stored in volumes: engines come in images", "storage"),),
    "storageClass absent": (NoRoom("nothing is stored in volumes: engines come in images", "storageClassName"),),
}  # fmt: skip

STRINGS: dict[str, tuple[Case, ...]] = {
    "64-char name": (
        Refused(full("a" * 64), ("a" * 64, "metadata.name", "at most 40 characters")),
        Refused(engine("e" * 64, family="bad"), ("metadata.name", "at most 63 characters")),
        Taken(full("a" * 40)),
    ),
    "uppercase": (Refused(full("Credit"), ("metadata.name", '"Credit"', "lowercase")),),
    "leading dash": (
        Refused(full("-credit"), ("metadata.name", '"-credit"')),
        Refused(full(engine={"family": "-f"}), ("spec.engine.family", '"-f"', LABEL)),
    ),
    "NUL": (
        Refused(full(accuracy={"suite": "a\0b"}), ("spec.accuracy.suite", LABEL)),
        Refused(full(placement={"nodeSelector": {"a": "b\0"}}), ("spec.placement.nodeSelector.a", LABEL)),
        Refused(full(placement={"nodeSelector": {"a\0": "b"}}), ("spec.placement.nodeSelector", "keys must")),
    ),
    "newline (config/PromQL injection)": (
        Refused(full(accuracy={"suite": "suite\n"}), ("spec.accuracy.suite", LABEL)),
        Refused(full(accuracy={"suiteKeys": ["A" * 43 + "\n"]}), ("spec.accuracy.suiteKeys[0]", LABEL)),
        Refused(full(access={"namespaces": ["a\nb"]}), ("spec.access.namespaces[0]", LABEL)),
        Refused(full(accuracy={"suite": '"} or vector(1)'}), ("spec.accuracy.suite", LABEL)),
        Refused(engine("bad", precision='F16"\n}'), ("spec.precision", LABEL)),
    ),
    "RTL/homoglyph tenant": (
        Refused(full(access={"namespaces": ["team\u202ecredit"]}), ("spec.access.namespaces[0]", LABEL)),
        Refused(full(access={"namespaces": ["tеam-credit"]}), ("spec.access.namespaces[0]", LABEL)),
    ),
    "NFC/NFD pair": (
        Refused(full("café"), ("metadata.name",)),
        Refused(full(engine={"family": "cafe\u0301"}), ("spec.engine.family", LABEL)),
        # Two spellings of the same 32 bytes.
        Refused(full(accuracy={"suiteKeys": ["A" * 42 + "B="]}), ("spec.accuracy.suiteKeys[0]", LABEL)),
    ),
    "case-collision": (Refused(full(engine={"family": "SmolLM2"}), ("spec.engine.family", '"SmolLM2"', LABEL)),),
    "../": (
        Refused(full(engine={"family": "../x"}), ("spec.engine.family", '"../x"', LABEL)),
        Refused(full(accuracy={"suite": "../../etc"}), ("spec.accuracy.suite", LABEL)),
        Refused(engine("bad", artifact_image="../engine"), ("spec.artifact.image", LABEL)),
    ),
    "absolute path": (Refused(full(accuracy={"suite": "/etc/passwd"}), ("spec.accuracy.suite", '"/etc/passwd"', LABEL)),),
    "shell metachars": (
        Refused(engine("bad", artifact_image="a; rm -rf /"), ("spec.artifact.image", '"a; rm -rf /"', LABEL)),
        Refused(engine("bad", artifact_image=" engine"), ("spec.artifact.image", LABEL)),
        Refused(full(placement={"nodeSelector": {"a": "$(reboot)"}}), ("spec.placement.nodeSelector.a", LABEL)),
    ),
    "Jinja/$(VAR)": (
        Refused(engine("bad", artifact_image="$(HOSTNAME)"), ("spec.artifact.image", LABEL)),
        Refused(engine("bad", precision="{{7*7}}"), ("spec.precision", LABEL)),
    ),
    "SQL quote": (Refused(full(engine={"family": "x'; drop table engines"}), ("spec.engine.family", LABEL)),),
    "PG identifier >63": (
        Refused(full(engine={"family": "f" * 64}), ("spec.engine.family", "63")),
        Taken(
            full("longfamily", engine={"family": "f" * 63}),
            ("EngineReady", "False", "EngineNotFound"), "no engine of tier full", POLICIES,
        ),
    ),
    "reserved names (public, pg_x, kube-system)": (
        Taken(full("public")),
        Refused(full("pg_x"), ("metadata.name", '"pg_x"')),
        Taken(full("kube-system", access={"namespaces": ["kube-system"]})),
    ),
}  # fmt: skip

ENUMS: dict[str, tuple[Case, ...]] = {
    "tier unknown": (Refused(cr({"tier": "huge"}), ("spec.tier", '"huge"', '"full", "lite", "edge"')),),
    "case variant": (
        Refused(cr({"tier": "FULL"}), ("spec.tier", '"FULL"', '"full", "lite", "edge"')),
        Refused(full(accuracy={"onBreach": "rollback"}), ("spec.accuracy.onBreach", '"rollback"', '"Alert", "Rollback"')),
    ),
    "engine/tier mismatch": (
        Taken(
            cr({"tier": "edge", "engine": {"precision": "FP16"}}, "mismatch"),
            ("EngineReady", "False", "EngineNotFound"), "the catalog has for this tier: smollm2-edge-q4-1", POLICIES,
        ),
    ),
    "unsigned model": (
        Refused(engine("bad", artifact_sha256=None), ("spec.artifact.sha256: Required value",)),
        Refused(engine("bad", artifact_sha256="abc"), ("spec.artifact.sha256", "at least 64 chars long")),
        Refused(engine("bad", artifact=None), ("spec", "artifact is required unless reference.claimedBy is set")),
    ),
    "pickle model": (Refused(engine("bad", backend="pytorch"), ("spec.backend", '"pytorch"', '"openvino"')),),
}  # fmt: skip

REFERENCES: dict[str, tuple[Case, ...]] = {
    "missing Secret": (
        NoRoom("a deployment refers to no Secret", "secretRef"),
        Taken(full("nosuite", accuracy={"suite": "nobodys"}), ("QualityVerified", "False", "SuiteNotFound"), "nobodys", POLICIES),
    ),
    "wrong key": (
        Taken(full("wrongkey", accuracy={"suite": "keyless"}), ("QualityVerified", "False", "SuiteInvalid"), "keyless", POLICIES),
    ),
    "other-namespace Secret": (
        NoRoom("references carry no namespace", "accuracy.namespace"),
        Refused(full(accuracy={"suite": "team-b/suite"}), ("spec.accuracy.suite", '"team-b/suite"', LABEL)),
    ),
    "SecretRef to SA token": (NoRoom("a deployment refers to no Secret", "secretRef"),),
    "own-output cycle": (
        Taken(full("cycle", accuracy={"suite": "cycle-accuracy"}), ("QualityVerified", "False", "SuiteNotFound"), "", POLICIES),
        Taken(engine("ouroboros", reference={"suite": "smollm2-full-v1", "inheritedFrom": "ouroboros"})),
    ),
    "foreign PVC": (NoRoom("nobody names a claim: the operator makes its own, by the engine's digest", "claimName"),),
    "URL to metadata IP/loopback/file:": (
        Refused(engine("bad", artifact_image="http://169.254.169.254/latest"), ("spec.artifact.image", LABEL)),
        Refused(engine("bad", artifact_image="http://127.0.0.1/x"), ("spec.artifact.image", LABEL)),
        Refused(engine("bad", artifact_image="file:///etc/passwd"), ("spec.artifact.image", LABEL)),
        *(Refused(engine("bad", artifact=archive(url)), ("spec.artifact.archive.url", LABEL)) for url in ("file:///etc/passwd", "http://a.example/e.tar", "https://u:p@a.example/e.tar")),
        *(Refused(engine("bad", artifact=archive(url)), ("spec.artifact.archive", "must not lead to this machine")) for url in ("https://169.254.169.254/latest", "https://localhost/x", "https://127.0.0.1/x", "https://2130706433/x", "https://metadata.google.internal/x")),
    ),
    "image without digest/bad registry": (
        Refused(engine("bad", artifact_image="Registry/Engine"), ("spec.artifact.image", LABEL)),
        Refused(engine("bad", artifact_image="engine@sha256:12"), ("spec.artifact.image", LABEL)),
        # The files are held to their own sha256 before Triton starts, so a tag will do.
        Taken(engine("tagged", artifact_image="no.such.registry:5000/engines/tagged:latest")),
    ),
}  # fmt: skip

LIFE: dict[str, tuple[Case, ...]] = {
    "forged tenant label": (Taken(full("labelled", {"labels": {"r1plus.ai/tenant": "team-b", "r1plus.ai/deployment": "other"}})),),
    "forged ownerRef": (
        Taken(
            full("owned", {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "1-2-3"}]}),
            then="collected",
        ),
    ),
    "foreign finalizer": (
        Taken(full("held", {"finalizers": ["example.com/hold"]}), then="deleted"),
        Taken(full("held-by-kopf", {"finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]}), then="deleted"),
    ),
    "status on create": (Taken(full("lying") | {"status": {"verdict": "Pass", "revision": "lying-0123456789"}}),),
    "kopf annotation forged": (
        Taken(full("kopfed", {"annotations": {f"kopf.zalando.org/{name}": "{" for name in ("last-handled-configuration", "observe", "touch-dummy")}})),
    ),
    "immutable tenant changed": (NoRoom("the namespace is the tenant, and no object changes its namespace", "tenant"),),
    "tier changed mid-rollout": (Taken(full("changed"), then="edited"),),
    "delete+recreate race": (Taken(full("reborn"), then="recreated"),),
    "generateName": (
        Taken(cr({"tier": "full"}, generateName="made-", name="")),
        Refused(cr({"tier": "full"}, generateName="m" * 40, name=""), ("metadata.name", "at most 40 characters")),
    ),
    "ReDoS pattern": (
        Refused(full(accuracy={"suite": "(a+)+$"}), ("spec.accuracy.suite", LABEL)),
        Refused(full(engine={"family": "-".join("a" * 31) + "!"}), ("spec.engine.family", LABEL)),
        Refused(engine("bad", artifact_image="a" * 250 + "-._" * 80 + "!"), ("spec.artifact.image", LABEL)),
    ),
    "cron/duration garbage": (
        NoRoom("probes have a rate, not a schedule", "accuracy.schedule"),
        Refused(full(rollout={"deadline": "soon"}), ("spec.rollout.deadline", '"soon"', LABEL)),
        Refused(full(rollout={"deadline": "1h30m"}), ("spec.rollout.deadline", '"1h30m"', LABEL)),
        Refused(full(rollout={"deadline": "0s"}), ("spec.rollout.deadline", '"0s"', LABEL)),
        Refused(full(rollout={"deadline": "25h"}), ("spec.rollout.deadline", '"25h"', LABEL)),
        Taken(full("deadline", rollout={"deadline": "24h"})),
        *(
            Refused(full(rollout={"drain": wrong}), ("spec.rollout.drain", f'"{wrong}"', LABEL))
            for wrong in ("soon", "0s", "1h30m", "25h", "1000m", "-5m", "١٠m")
        ),
        Refused(full(rollout={"drain": 600}), ("spec.rollout.drain", "string")),
        *(Taken(full(f"drain-{right}", rollout={"drain": right})) for right in ("1s", "9999s", "999m", "24h")),
    ),
}  # fmt: skip

_ALL: dict[str, tuple[Case, ...]] = TYPES | NUMBERS | QUANTITIES | STRINGS | ENUMS | REFERENCES | LIFE
CLASSES = {
    name: (*_ALL.get(name, ()), *tenant_inputs.REFUSED.get(name, ())) for name in {**_ALL, **tenant_inputs.REFUSED}
}


def body_of(case: Case) -> Json | str:
    """What is sent; of a class without room, a deployment that has the field nevertheless."""
    if not isinstance(case, NoRoom):
        return case.sent
    value: Any = "x"
    for part in reversed(case.field.split(".")):
        value = {part: value}
    return full(**value)


def said(case: Refused | NoRoom) -> tuple[str, ...]:
    """What the API server's answer must hold."""
    return case.said if isinstance(case, Refused) else (f'unknown field "spec.{case.field}"',)


def taken() -> list[Taken]:
    """Every case that the operator gets to see."""
    return [case for cases in CLASSES.values() for case in cases if isinstance(case, Taken)]
