"""What a request needs on this machine: its engine, verified; earlier ones to go back to; and memory for two."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from r1plus_cli.local import SHIPPED_CATALOG, SHIPPED_SUITES, load_engines, load_suites
from r1plus_contract.jsonable import dumps
from r1plus_contract.names import INIT_VERIFY
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.images import Images
from r1plus_edge.pods.pod import LocalPod, VolumeSources
from r1plus_edge.start.deployment import build_request
from r1plus_edge.start.listening import Listening
from r1plus_edge.start.machine import LABELS
from r1plus_edge.start.options import ServeOptions
from r1plus_edge.start.tenant import TenantRequest
from r1plus_edge.world import Installation, Preparation, has_room_for_trial, prepare
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.pins import SHIPPED_SUITES as DIGESTS
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.observation import NodeFacts, Observation
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.storage import read_revisions
from r1plus_operator.plan.settings import SuiteTrust
from r1plus_policies.rollout import Strategy
from support.edge.engines import NAME, write_catalog

GIB = 2**30
IMAGES = Images("localhost/triton@sha256:1", "localhost/monitor@sha256:2", "localhost/gateway:1", Path("/triton"))


def node(memory: int) -> NodeFacts:
    return NodeFacts("localhost", memory, 4.0, LABELS, addresses=("127.0.0.1",))


class Machine:
    """A data folder, and engines in a cache of its own."""

    def __init__(self, root: Path, memory: int = 16 * GIB) -> None:
        self.installation = Installation(DataFolder(root / "data"), IMAGES, node(memory))
        self.cache = root / "cache"
        self.files = self.cache / "engines" / NAME
        self.files.mkdir(parents=True)
        (self.files / "openvino_model.bin").write_text("weights")
        self.catalog = write_catalog(self.files, root / "catalog")
        (self.cache / "engines" / "smollm2-edge-q4-1").mkdir()

    def options(self, engine: str = "", **spec: object) -> ServeOptions:
        known = (*load_engines(SHIPPED_CATALOG), *load_engines(self.catalog))
        request = build_request("edge", "local", R1PlusDeploymentSpec.model_validate({"tier": "edge", **spec}))
        chosen = tuple(one for one in known if one.name == engine) or known
        if engine:
            request = request.select_engine(chosen[0])
        return ServeOptions(
            request=request,
            engines=chosen,
            suites=load_suites(SHIPPED_SUITES),
            trust=SuiteTrust(shipped_digests=frozenset(DIGESTS.values())),
            family="smollm2",
            data=self.installation.folder.root,
            listening=Listening("127.0.0.1", 8400),
            catalog=known,
            cache=self.cache,
            tenant=TenantRequest(R1PlusTenantSpec(), None),
        )

    async def prepare(
        self, engine: str = NAME, revisions: Mapping[str, Revision] | None = None, *, verifies: bool = False
    ) -> Preparation:
        return await prepare(
            self.options(engine), self.installation, revisions or {}, lambda line: None, verifies=verifies
        )

    def make_revision(self, preparation: Preparation) -> dict[str, Revision]:
        """Return what the plan makes of it at first, as one that has taken traffic."""
        meta = {"name": "edge", "namespace": "local", "uid": "u", "generation": 1}
        world = preparation.world
        cr = {"metadata": meta, "spec": preparation.request.document, "status": {}}
        seen = Observation(cr, world.engines, world.suites, (world.node,), {}, volumes=world.volumes)
        written = {
            (obj["kind"], obj["metadata"]["name"]): obj
            for stage in plan(seen, world.config, 1000.0).apply
            for obj in stage
        }
        return {name: replace(one, promoted_at=1000.0) for name, one in read_revisions(written).items()}


async def test_files_that_are_not_the_engines_are_refused_with_both_digests(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.files / "openvino_model.bin").write_text("other weights")
    await machine.prepare()  # A start: its pod's init container verifies them.
    with pytest.raises(EdgeError, match=rf"engine {NAME}: .* has sha256 .*, and its R1PlusEngine says .*; fetch it ag"):
        await machine.prepare(verifies=True)


async def test_the_engine_of_an_earlier_revision_stays_until_its_files_go(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    earlier = machine.make_revision(await machine.prepare())
    both = await machine.prepare("smollm2-edge-q4-1", earlier)
    assert [engine.name for engine in both.world.engines] == ["smollm2-edge-q4-1", NAME]
    assert len(both.world.claims) == 2
    machine.files.rename(tmp_path / "gone")
    alone = await machine.prepare("smollm2-edge-q4-1", earlier)
    assert [engine.name for engine in alone.world.engines] == ["smollm2-edge-q4-1"]
    assert len(alone.world.claims) == 1


MEMORY: dict[str, tuple[int, bool, Strategy]] = {
    "memory for two": (16 * GIB, True, Strategy.BLUE_GREEN),
    "memory for one": (3 * GIB // 2, True, Strategy.IN_PLACE),
    "nothing has served yet": (3 * GIB // 2, False, Strategy.BLUE_GREEN),
}


@pytest.mark.parametrize(("memory", "has_served", "strategy"), MEMORY.values(), ids=MEMORY)
async def test_what_serves_stops_for_a_gate_only_where_the_memory_does_not_hold_both(
    tmp_path: Path, memory: int, has_served: bool, strategy: Strategy
) -> None:
    machine = Machine(tmp_path, memory)
    earlier = machine.make_revision(await machine.prepare()) if has_served else {}
    preparation = await machine.prepare("smollm2-edge-q4-1", earlier)
    assert preparation.request.spec.rollout.strategy is strategy


SMALL: dict[str, tuple[int, str]] = {
    "1 GiB, of which half is the system's": (GIB // 2, "too little memory for any context; it takes one with 1."),
    "1.4 GiB": (GIB * 9 // 10, "On this machine it fits with spec.context.maxTokens: "),
}


@pytest.mark.parametrize(("memory", "words"), SMALL.values(), ids=SMALL)
async def test_a_machine_that_is_too_small_is_refused_with_what_fits(tmp_path: Path, memory: int, words: str) -> None:
    with pytest.raises(EdgeError) as refusal:
        await Machine(tmp_path, memory).prepare()
    assert words in str(refusal.value)
    assert " node" not in str(refusal.value)


def as_torch(engine: Engine) -> Engine:
    """Return the engine as one of the backend torch."""
    document = engine.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | {"backend": "torch"}
    document["precision"] = "FP32"
    return Engine(engine.name, EngineSpec.model_validate(document))


def write_gpu_engine(catalog: Path, artifact: dict[str, str] | None) -> Engine:
    """Write the R1PlusEngine of the tier's engine for GPUs; `artifact`: what says that its files are there."""
    documents = yaml.safe_load_all((SHIPPED_CATALOG / "r1plus.yaml").read_text())
    engine = next(one for one in documents if one["metadata"]["name"] == "r1plus-edge-fp16-vllm")
    engine["spec"] |= {"reference": {"suite": "smollm2-edge-v1", "claimedBy": "its publisher"}}
    engine["spec"] |= {"artifact": artifact} if artifact else {}
    catalog.mkdir()
    (catalog / "gpu.yaml").write_text(yaml.safe_dump(engine))
    return load_engines(catalog, "r1plus")[0]


FOREIGN: dict[str, tuple[dict[str, str] | None, str]] = {
    "one for GPUs": (
        {"image": "local/engine:1", "sha256": "0" * 64},
        r"RuntimeNotServed: .* vllm, but this installation serves openvino: choose an engine of one of these backends$",
    ),
    "one whose files are nowhere": (
        None,
        r"EngineNotDelivered: .* make them with `r1plus engine import`, and give their folder with --engine and their .*g$",
    ),
}


@pytest.mark.parametrize(("artifact", "words"), FOREIGN.values(), ids=FOREIGN)
async def test_an_engine_for_another_machine_is_refused_with_a_remedy_of_this_one(
    tmp_path: Path, artifact: dict[str, str] | None, words: str
) -> None:
    machine = Machine(tmp_path)
    engine = write_gpu_engine(tmp_path / "gpu", artifact)
    options = replace(machine.options(), engines=(engine,), family=engine.spec.family)
    with pytest.raises(EdgeError, match=words):
        await prepare(options, machine.installation, {}, lambda line: None)


async def test_an_engine_of_torch_is_refused_where_torch_is_not_installed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    engine = as_torch(next(one for one in machine.options().engines if one.name == NAME))
    words = r"RuntimeNotServed: .* needs the backend torch, .*, or install r1plus\[torch\] where this r1plus is$"
    options = replace(machine.options(), engines=(engine,), family=engine.spec.family)
    with pytest.raises(EdgeError, match=words):
        await prepare(options, machine.installation, {}, lambda line: None)


async def test_a_suite_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    options = machine.options(NAME, accuracy={"suite": "nonesuch-v1"})
    words = r"no such suite is shipped; give the folder of one with --suite, or name a shipped one: .*smollm2-edge-v1"
    with pytest.raises(EdgeError, match=words):
        await prepare(options, machine.installation, {}, lambda line: None)


async def test_a_trial_of_more_than_serves_needs_memory_for_that(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    small = machine.options(NAME, batching={"maxBatchSize": 1}, context={"maxTokens": 512})
    large = machine.options(NAME, batching={"maxBatchSize": 16})
    serving = machine.make_revision(await prepare(small, machine.installation, {}, lambda line: None))
    rooms = [
        has_room_for_trial(options, replace(machine.installation, node=node(memory)), serving)
        for options, memory in ((small, 4 * GIB), (large, 4 * GIB), (large, 5 * GIB))
    ]
    assert rooms == [True, False, True]


async def test_the_engine_that_a_claim_links_to_is_verified_by_the_pods_init_container(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    preparation = await machine.prepare()
    (revision,) = machine.make_revision(preparation).values()
    files = {"config.pbtxt": revision.data["configPbtxt"], "identity.json": dumps(revision.identity)}
    sources = VolumeSources(lambda name: files if name == revision.name else {}, claims=preparation.world.claims)
    pod = LocalPod("pod", revision.data["template"], machine.installation.folder, IMAGES, sources, lambda: None)
    pod._make_volumes()
    verify = pod.find_container(INIT_VERIFY)
    code = await verify.run_once()
    pod.remove()
    assert (code, verify.facts.message) == (0, "")
