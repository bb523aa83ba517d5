"""Updates as values: what is asked for, what is on record of it, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_edge.objects import write_synced
from r1plus_operator.plan.revision.record import Revision, find_current_revision


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What shall differ from the options that `serve` was started with; empty: as it is. Paths are absolute."""

    engine: str = ""
    """Name of an engine of the catalog, or the folder of one."""
    file: str = ""
    """File with an R1PlusDeployment."""
    suite: str = ""
    """Name of a shipped golden suite, or the folder of one."""
    catalog: str = ""
    """Folder with R1PlusEngines, in addition to those that are known."""

    def on_top_of(self, earlier: "UpdateRequest") -> "UpdateRequest":
        """Return both as one: what this one names holds. A file of its own replaces the engine of an earlier one."""
        base = replace(earlier, engine="") if self.file else earlier
        named = {one.name: value for one in fields(self) if (value := getattr(self, one.name))}
        return replace(base, **named)


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """What the data folder has on updates. Each change replaces the file in one step."""

    origin: str
    """`ServeOptions.digest` of the options on which the updates were made."""
    in_force: UpdateRequest = UpdateRequest()
    """What the next start serves by."""
    pending: UpdateRequest | None = None
    """What is being gated."""
    candidate: str = ""
    """The revision of `pending`, once the plan has made it."""


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What came of an update."""

    is_in_force: bool
    text: str
    """For people; what serves now is part of it."""


def load_record(path: Path, origin: str) -> UpdateRecord:
    """Return the record of updates on these options; an empty one where there is none, or it is of other options."""
    try:
        record = loads(UpdateRecord, path.read_text(encoding="utf-8"), tolerant=True)
    except (OSError, ContractError):
        return UpdateRecord(origin)
    return record if record.origin == origin else UpdateRecord(origin)


def save_record(path: Path, record: UpdateRecord) -> None:
    """Replace the record; it is on the disk when this returns. Raises OSError."""
    write_synced(path, dumps(record))


def settle_interrupted(record: UpdateRecord, revisions: Mapping[str, Revision]) -> UpdateRecord:
    """Return the record after a crash: an update whose revision had taken traffic is in force, any other one is void.

    So what served before serves again, whatever the candidate has done to this machine.
    """
    if record.pending is None:
        return record
    current = find_current_revision(revisions.values())
    has_taken_over = current is not None and current.name == record.candidate
    in_force = record.pending if has_taken_over else record.in_force
    return UpdateRecord(record.origin, in_force)
