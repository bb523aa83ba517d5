"""What the last valid spec asked for: what serves is judged by it while the spec has a Problem.

It is an annotation on the ControllerRevision that serves, written in every pass, so that a promotion writes it as well.
A cluster that an earlier version stored has none: then it is derived from the revisions, verdicts and rollback records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from r1plus_contract.jsonable import ContractError, loads
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.observation import Json


@dataclass(frozen=True, slots=True)
class LastValid:
    """The annotation."""

    target: str
    """The revision that was asked for."""
    suite_hash: str = ""
    """Of the suite that was asked for; empty where it is not known."""
    spec: Json = field(default_factory=dict)
    """The newest spec that could be read."""
    has_dropped: bool = False
    """Whether the accuracy of what serves was below the threshold when its pods were counted last."""


def read_last_valid(text: str | None) -> LastValid | None:
    """Return the annotation's value; None where there is none or it cannot be read."""
    try:
        return loads(LastValid, text, tolerant=True) if text else None
    except ContractError:
        return None


def readable_spec(spec: Json, former: Json) -> R1PlusDeploymentSpec | None:
    """Return `spec` with `former`'s values, or the defaults, in place of those that cannot be read.

    None where a field that has no default cannot be read in either.
    """
    for replacement in (former, {}):
        try:
            return R1PlusDeploymentSpec.model_validate(spec)
        except ValidationError as error:
            spec = _with_fields_of(replacement, spec, error)
    try:
        return R1PlusDeploymentSpec.model_validate(spec)
    except ValidationError:
        return None


def _with_fields_of(replacement: Mapping[str, object], spec: Json, error: ValidationError) -> Json:
    """Return the spec with its faulty fields taken from the replacement, or left out where that has none.

    A field is one of the spec's own or one of a section of it.
    """
    result = dict(spec)
    for path in {item["loc"][:2] for item in error.errors(include_url=False)}:
        if not path:
            return dict(replacement)
        name = str(path[0])
        section = result.get(name)
        if len(path) == 1 or not isinstance(section, dict):
            _copy_field(result, name, replacement)
            continue
        former = replacement.get(name)
        section = dict(section)
        _copy_field(section, str(path[1]), former if isinstance(former, Mapping) else {})
        result[name] = section
    return result


def _copy_field(fields: Json, name: str, replacement: Mapping[str, object]) -> None:
    fields.pop(name, None)
    if name in replacement:
        fields[name] = replacement[name]


def with_switches(spec: R1PlusDeploymentSpec, raw: Json) -> R1PlusDeploymentSpec:
    """Return the spec with `paused` and `pinned` of one that cannot be read as a whole, where it sets them."""
    rollout = raw.get("rollout")
    if not isinstance(rollout, dict):
        return spec
    switches = {key: on for key in ("paused", "pinned") if isinstance(on := rollout.get(key), bool)}
    return spec.model_copy(update={"rollout": spec.rollout.model_copy(update=switches)})


def with_threshold(spec: R1PlusDeploymentSpec, former: Json) -> R1PlusDeploymentSpec:
    """Return the spec with the threshold of `former`, if any: its own cannot be reached by any engine."""
    threshold = (former.get("accuracy") or {}).get("threshold")
    if not isinstance(threshold, int | float):
        return spec
    accuracy = spec.accuracy.model_copy(update={"threshold": float(threshold)})
    return spec.model_copy(update={"accuracy": accuracy})


def dump_spec(spec: R1PlusDeploymentSpec) -> Json:
    """Return the spec as the record keeps it, defaults included: another version may have others."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True)
