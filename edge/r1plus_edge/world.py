"""What a request needs on this machine: its engine's files, and what earlier revisions need to be gone back to."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.remedies import use_wording
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.errors import EdgeError
from r1plus_edge.pods.claims import find_claims, link_claim, remove_other_claims
from r1plus_edge.pods.images import Images
from r1plus_edge.start.deployment import ServeRequest
from r1plus_edge.start.machine import GIB, MIB, RESERVED_BYTES
from r1plus_edge.start.options import ServeOptions, build_config
from r1plus_edge.start.preparation import prepare_engine
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.conditions import Reason
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.observation import NodeFacts, SuiteSource, VolumeFacts
from r1plus_operator.plan.podspec.pod import POD_OVERHEAD
from r1plus_operator.plan.revision.record import Revision, find_current_revision
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_policies.rollout import Strategy


@dataclass(frozen=True, slots=True)
class World:
    """What the plan observes besides its own objects. An update replaces it."""

    engines: tuple[Engine, ...]
    suites: Mapping[str, SuiteSource]
    node: NodeFacts
    config: OperatorConfig
    volumes: Mapping[str, VolumeFacts]
    """Name of a claim -> that it has its engine."""
    claims: Mapping[str, Path]
    """Name of a claim -> its folder."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What stays while `serve` runs."""

    folder: DataFolder
    images: Images
    node: NodeFacts


@dataclass(frozen=True, slots=True)
class Preparation:
    """A request for which everything is on this machine."""

    request: ServeRequest
    """As the plan gets it."""
    world: World
    target: Target
    files: Path
    """Of its engine."""


async def prepare(
    options: ServeOptions,
    installation: Installation,
    revisions: Mapping[str, Revision],
    tell: Callable[[str], None],
    *,
    verifies: bool = False,
) -> Preparation:
    """Make what the request needs; `verifies`: compare the engine's files with its digest now, not at its pod's start.

    Raises:
        EdgeError: it cannot be served here, its files cannot be made, or are not those of the engine.
    """
    folder, node = installation.folder, installation.node
    config = build_config(options, installation.images, installation.folder)
    current = find_current_revision(revisions.values())
    target = _resolve(options, config, node, current.engine if verifies and current else "")
    files = await prepare_engine(target.engine, options.given_engine, options.cache, folder.root, tell)
    if verifies:
        await asyncio.to_thread(_verify, target.engine, files)
    volume = target.volume
    assert volume is not None  # `Request` asks for one.
    volumes = {one.name: one for revision in revisions.values() if (one := revision.volume) is not None}
    link_claim(folder, volume, files)
    volumes[volume.name] = volume
    claims = find_claims(folder, volumes.values())
    remove_other_claims(folder, volumes.values())  # Not those whose engine is away for a while.
    facts = {name: VolumeFacts(delivered_digest=volumes[name].order.digest) for name in claims}
    engines = (*options.engines, *_list_earlier_engines(options, revisions, claims))
    request = options.request
    if request.spec.rollout.strategy is Strategy.BLUE_GREEN and not has_room_for_both(target, revisions, node):
        request = request.with_strategy(Strategy.IN_PLACE)
    return Preparation(request, World(engines, options.suites, node, config, facts, claims), target, files)


def has_room_for_both(target: Target, revisions: Mapping[str, Revision], node: NodeFacts) -> bool:
    """Whether the memory holds a pod of the target and one of any that has served: for a gate, and to go back."""
    earlier = [_sum_memory(one) for one in revisions.values() if one.promoted_at is not None]
    return target.fit.total_bytes + POD_OVERHEAD + max(earlier, default=0) <= node.memory_bytes


def has_room_for_trial(options: ServeOptions, installation: Installation, revisions: Mapping[str, Revision]) -> bool:
    """Whether the memory holds what serves, and beside it other software's trial of `options`.

    What only the other software can choose counts as much as what serves.
    """
    current = find_current_revision(revisions.values())
    if current is None:
        return True
    serving = _sum_memory(current)
    try:
        target = _resolve(
            options, build_config(options, installation.images, installation.folder), installation.node, current.engine
        )
        tried = max(serving, target.fit.total_bytes)
    except EdgeError:
        tried = serving
    return serving + tried + POD_OVERHEAD <= installation.node.memory_bytes


def _sum_memory(revision: Revision) -> int:
    """Return the memory that a pod requests, bytes."""
    requests = (one["resources"].get("requests", {}) for one in revision.template["spec"]["containers"])
    return sum(bytes_of(request["memory"]) for request in requests if "memory" in request)


def _resolve(options: ServeOptions, config: OperatorConfig, node: NodeFacts, serving_engine: str) -> Target:
    """Return what the plan would serve, so that its files can be made first."""
    suites = dict(options.suites)
    with use_wording(config.wording):
        target = resolve(
            options.request.spec, options.engines, suites, (node,), config, serving_engine, suite_names=suites.keys()
        )
    if isinstance(target, Problem):
        remedy = _suggest(options, config, node) if target.reason in _TOO_LARGE else ""
        raise EdgeError(f"{target.reason.value}: {target.message}{remedy}")
    return target


_TOO_LARGE: Final = frozenset({Reason.NO_NODE_FITS, Reason.CONTEXT_TOO_LONG, Reason.BATCH_TOO_LARGE})
_SHORTER_CONTEXTS: Final = (4096, 2048, 1024, 512)
_MEMORY_STEP, _MOST_MEMORY = 256 * MIB, 128 * GIB


def _suggest(options: ServeOptions, config: OperatorConfig, node: NodeFacts) -> str:
    """Return what would fit: a shorter context on this machine, else the least machine for what is asked for."""
    spec, suites = options.request.spec, dict(options.suites)
    for tokens in _SHORTER_CONTEXTS:
        if spec.context.max_tokens is not None and tokens >= spec.context.max_tokens:
            continue
        shorter = spec.model_copy(update={"context": spec.context.model_copy(update={"max_tokens": tokens})})
        if isinstance(resolve(shorter, options.engines, suites, (node,), config), Target):
            return f". On this machine it fits with spec.context.maxTokens: {tokens}"
    for memory in range(node.memory_bytes, _MOST_MEMORY, _MEMORY_STEP):
        if isinstance(resolve(spec, options.engines, suites, (replace(node, memory_bytes=memory),), config), Target):
            needed = (memory + RESERVED_BYTES) / GIB
            return f". This machine has too little memory for any context; it takes one with {needed:.2f} GiB"
    return ""


def _verify(engine: Engine, files: Path) -> None:
    """Refuse files that are not those of the engine."""
    try:
        digest = digest_folder(files)
    except (OSError, ValueError) as error:
        raise EdgeError(f"engine {engine.name}: {files}: {error}; give its folder again") from error
    if digest != engine.spec.files.sha256:
        raise EdgeError(
            f"engine {engine.name}: {files} has sha256 {digest}, and its R1PlusEngine says {engine.spec.files.sha256};"
            " fetch it again"
        )


def _list_earlier_engines(
    options: ServeOptions, revisions: Mapping[str, Revision], claims: Iterable[str]
) -> list[Engine]:
    """Return engines of earlier revisions that are still here, and that the request cannot choose by mistake."""

    def describe(engine: Engine) -> tuple[object, ...]:
        about = engine.spec
        return about.tier, about.family, about.version, about.precision

    chosen = {describe(engine) for engine in options.engines}
    names = {engine.name for engine in options.engines}
    used = {
        (one.engine, one.identity.engine_digest)
        for one in revisions.values()
        if one.volume is not None and one.volume.name in set(claims)
    }
    return [
        engine
        for engine in options.catalog
        if engine.name not in names
        and describe(engine) not in chosen
        and engine.spec.artifact is not None
        and (engine.name, engine.spec.files.sha256) in used
    ]
