"""Updates as values: what is asked for, what is on record of it, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path

from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.suites.suite_files import MAX_BYTES
from r1plus_edge.errors import EdgeRequestError
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
    text: str = ""
    """Of an R1PlusDeployment, instead of `file`: who serves may not read what who asks may."""
    suite_texts: dict[str, str] = field(default_factory=dict)
    """File -> its text, of the golden suite `suite`, instead of its folder."""
    software: str = ""
    """Folder of other software, as a bundle has brought it. Never on record: it is what serves."""

    def on_top_of(self, earlier: "UpdateRequest") -> "UpdateRequest":
        """Return both as one: what this one names holds. A file of its own replaces the engine of an earlier one."""
        base = replace(earlier, engine="") if self.file else earlier
        named = {one.name: value for one in fields(self) if (value := getattr(self, one.name))}
        return replace(base, **named)


def read_suite_texts(folder: Path) -> dict[str, str]:
    """Return file -> text of a golden suite. Raises OSError, ValueError: they cannot be read, or are too large."""
    files = {name: folder / name for name in MAX_BYTES if (folder / name).is_file()}
    if large := next((name for name, file in files.items() if file.stat().st_size > MAX_BYTES[name]), None):
        raise ValueError(f"{large} has more than {MAX_BYTES[large]} bytes")
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}


def keep_texts(request: UpdateRequest, folder: Path) -> UpdateRequest:
    """Write the texts of a request into `folder`, where the next starts find them; return it with their paths.

    Raises:
        EdgeRequestError: a name is none of a suite, or of a file of one.
        OSError: they cannot be written.
    """
    file, suite = request.file, request.suite
    if request.text:
        file = str(folder / f"{_digest(request.text)}.yaml")
        _write(Path(file), request.text)
    if request.suite_texts:
        unknown = sorted(request.suite_texts.keys() - MAX_BYTES.keys())
        if unknown or Path(suite).name != suite or suite in ("", ".", ".."):
            raise EdgeRequestError(f"--suite {suite!r:.100}: is no name of a suite, or has other files: {unknown}")
        suite = str(folder / _digest(dumps(sorted(request.suite_texts.items()))) / suite)
        for name, text in request.suite_texts.items():
            _write(Path(suite) / name, text)
    return replace(request, file=file, suite=suite, text="", suite_texts={})


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_synced(path, text)


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """What the data folder has on updates. Each change replaces the file in one step."""

    origin: str
    """`ServeOptions.digest` of the options on which the updates were made."""
    in_force: UpdateRequest = field(default_factory=UpdateRequest)
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
