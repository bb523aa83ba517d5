"""Which engines this machine can serve for a suite, by the operator's plan, and why it cannot serve the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_cli.advice.figures import Exclusion
from r1plus_cli.errors import CliError, UsageError
from r1plus_contract.inference import MOST_PROMPT_BYTES_PER_TOKEN
from r1plus_contract.suites.suite import Suite
from r1plus_edge.errors import EdgeError
from r1plus_edge.start.engines import find_made_engine
from r1plus_edge.start.machine import GIB, RESERVED_BYTES
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.feasibility import find_placement
from r1plus_operator.plan.observation import NodeFacts
from r1plus_operator.plan.podspec.pod import POD_OVERHEAD
from r1plus_operator.plan.settings import RUNTIMES
from r1plus_policies.engine.memory_fit import Fit, compute_fit
from r1plus_policies.engine.selection import Obstacle

LEAST_THRESHOLD = 0.001
"""Of a trial's gate: it asks everything, so that its counts decide under any threshold."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine to measure."""

    engine: Engine
    spec: R1PlusDeploymentSpec
    fit: Fit


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the user asks for; None: as the plan chooses."""

    batch: int | None = None
    context: int | None = None


def select_engines(
    names: Sequence[str], engines: Sequence[Engine], family: str = "", separate: Sequence[str] = ()
) -> tuple[Engine, ...]:
    """Return the engines of these names, in their order; no names: all, or those of a model family.

    `separate`: families whose engines are only in `engines` if `family` is theirs.

    Raises:
        UsageError: the catalog lacks one or the family, or one is named twice.
    """
    of_family = tuple(engine for engine in engines if family in ("", engine.spec.family))
    if not of_family:
        known = ", ".join(sorted({engine.spec.family for engine in engines} | {*separate}))
        raise UsageError(
            f"--family: no engine of family {family!r:.80}; give one of {known}, or --catalog with a folder of"
            " R1PlusEngines"
        )
    by_name = {engine.name: engine for engine in engines}
    if unknown := [name for name in names if name not in by_name]:
        known = ", ".join(sorted(engine.name for engine in engines if engine.spec.artifact is not None))
        others = f"; --family adds those of {', '.join(separate)}" if separate else ""
        raise UsageError(f"--engines: no engine {unknown[0]!r} in the catalog; those with files are {known}{others}")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--engines: {repeated[0]} is named twice; name each engine once")
    return tuple(by_name[name] for name in names) if names else of_family


def find_candidates(
    engines: Sequence[Engine], suite: Suite, sizes: Sizes, node: NodeFacts, cache: Path
) -> tuple[list[Candidate], list[Exclusion]]:
    """Return what can be measured on the node, and the rest with the reason. `cache`: where engines' files are."""
    candidates: list[Candidate] = []
    exclusions: list[Exclusion] = []
    for engine in engines:
        outcome = _place(engine, suite, sizes, node, cache)
        if isinstance(outcome, Candidate):
            candidates.append(outcome)
        else:
            exclusions.append(Exclusion(engine.name, engine.spec.tier.value, outcome))
    return candidates, exclusions


def _place(engine: Engine, suite: Suite, sizes: Sizes, node: NodeFacts, cache: Path) -> Candidate | str:
    if engine.spec.artifact is None:
        return "it is a published shape without files; import them with `r1plus engine import`"
    spec = build_spec(engine, suite, sizes)
    placement = find_placement(spec, engine, (node,), RUNTIMES)
    if isinstance(placement, Obstacle):
        return placement.message
    if problem := explain_context(suite, placement.fit.context):
        return problem
    try:
        find_made_engine(engine, cache)
    except EdgeError as error:
        return str(error)
    return Candidate(engine, spec, placement.fit)


def build_spec(engine: Engine, suite: Suite, sizes: Sizes) -> R1PlusDeploymentSpec:
    """Return the deployment of a trial: exactly this engine, and a gate that asks everything."""
    spec = engine.spec
    document: dict[str, Any] = {
        "tier": spec.tier.value,
        "engine": {"family": spec.family, "version": spec.version, "precision": spec.precision},
        "accuracy": {"suite": suite.header.name, "threshold": LEAST_THRESHOLD},
    }
    if sizes.batch is not None:
        document["batching"] = {"maxBatchSize": sizes.batch}
    if sizes.context is not None:
        document["context"] = {"maxTokens": sizes.context}
    return R1PlusDeploymentSpec.model_validate(document)


def explain_context(suite: Suite, context: int) -> str:
    """Return why the suite cannot fit a context, whatever the tokenizer; empty: it may."""
    sampling = suite.header.sampling
    if sampling.max_new_tokens >= context:
        return (
            f"suite {suite.header.name} asks for answers of {sampling.max_new_tokens} tokens, and the context has"
            f" {context}; give a longer --context, or build the suite with shorter answers"
        )
    limit = (context - sampling.max_new_tokens) * MOST_PROMPT_BYTES_PER_TOKEN
    longest = max(suite.items, key=lambda item: len(item.prompt.encode()))
    size = len(longest.prompt.encode()) + len(sampling.system.encode())
    if size <= limit:
        return ""
    return (
        f"suite {suite.header.name} does not fit a context of {context} tokens: item {longest.id} has {size} bytes,"
        f" at most {limit} can fit; give a longer --context, or shorten the item"
    )


def explain_none(exclusions: Sequence[Exclusion], engines: Sequence[Engine], node: NodeFacts, suite: Suite) -> CliError:
    """Return the error for a machine that can serve none of the engines: each with its reason, and what would do."""
    lines = [f"No engine can be measured on this machine ({node.cores:g} cores, {_gib(node.memory_bytes)} for it):"]
    lines += [f"  {one.engine}: {one.why}" for one in exclusions]
    tokens = suite.header.sampling.max_new_tokens + 1
    needs = {
        one.name: compute_fit(one.spec.shape, 1, tokens).total_bytes + POD_OVERHEAD + RESERVED_BYTES
        for one in engines
        if one.spec.artifact is not None and one.spec.backend.value in RUNTIMES
    }
    if needs:
        least = min(needs, key=lambda name: (needs[name], name))
        lines.append(
            f"The smallest is {least}: with --engines {least} --batch 1 and a short --context it needs a machine of"
            f" about {_gib(needs[least])}."
        )
    return CliError("\n".join(lines))


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
