"""Records: what a target has shown, on which machine, at which commit. `evidence/records/MACHINE/TARGET.json`."""

import hashlib
import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from evidence.repository import ROOT, is_ancestor, is_shallow

FOLDER: Final = ROOT / "evidence" / "records"
Outcome = Literal["PASSED", "FAILED"]
SKEW: Final = timedelta(minutes=10)
"""How far a clock may be ahead of ours before its record is of the future."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_NUMBERS: Final = {1: "one-core", 2: "two-cores", 4: "four-cores", 8: "eight-cores"}


class RecordError(Exception):
    """A record cannot be believed; the message names the file, what is wrong and the command that makes a new one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a measurement."""

    name: str
    """Short: `two-cores`, `h100`. It is the record's folder."""
    processor: str
    cores: int
    memory_gib: int
    gpu: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Record:
    """One run of a target, whole."""

    target: str
    command: str
    commit: str
    date: str
    """Its start, ISO 8601 in UTC to the minute."""
    machine: Machine
    load_before: float
    """Processes that wanted a core, of the minute before."""
    seconds: float
    result: Outcome
    figures: dict[str, Any]
    """The JSON line that the target printed last."""
    transcribed_from: str = ""
    """The page that had the figures before there were records: nobody has measured them for this record."""


def write_record(record: Record, folder: Path = FOLDER) -> Path:
    """Write a record, whole or not at all; returns its path."""
    file = folder / record.machine.name / f"{record.target}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    fields = asdict(record)
    text = json.dumps({**fields, "sha256": _digest(fields)}, indent=1, ensure_ascii=False) + "\n"
    staged = file.with_suffix(".part")
    staged.write_text(text)
    staged.replace(file)
    return file


def read_record(file: Path) -> Record:
    """Return a record that this module has written. Raises RecordError if it is cut, or written by hand."""
    remedy = f"run `make {file.stem}` again, or remove the file"
    try:
        fields = json.loads(file.read_text())
        digest = fields.pop("sha256", None)
        record = Record(**{**fields, "machine": Machine(**fields["machine"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{file}: cut, or of other fields ({error}): {remedy}") from error
    if digest != _digest(fields):
        raise RecordError(f"{file}: sha256 is not that of its fields, so it was edited by hand: {remedy}")
    if (record.machine.name, record.target) != (file.parent.name, file.stem):
        raise RecordError(f"{file}: it is of {record.machine.name}/{record.target}: {remedy}")
    return record


def check_record(record: Record, now: datetime, root: Path = ROOT) -> None:
    """Raise RecordError for a record of the future, or of a commit that is not in HEAD's history."""
    place = f"{record.machine.name}/{record.target}.json"
    if datetime.fromisoformat(record.date) > now + SKEW:
        raise RecordError(f"{place}: date {record.date} is in the future: set the clock, and measure again")
    if not is_shallow(root) and not is_ancestor(record.commit, root):
        raise RecordError(f"{place}: commit {record.commit} is no ancestor of HEAD: measure again on this branch")


def list_records(folder: Path = FOLDER) -> list[Path]:
    """Return the files of all records, sorted."""
    return sorted(folder.glob("*/*.json"))


def describe_machine() -> Machine:
    """Return what this machine is; its name is `$R1PLUS_MACHINE`, or its GPU's, or the number of its cores."""
    cores, gpu = os.cpu_count() or 1, _name_gpu()
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    # "NVIDIA H100 80GB HBM3" is h100.
    short = re.search(r"[A-Z]+\d+\w*", gpu)
    name = os.environ.get("R1PLUS_MACHINE") or (short[0].lower() if short else _NUMBERS.get(cores, f"{cores}-cores"))
    if not _NAME.fullmatch(name):
        raise RecordError(f"R1PLUS_MACHINE: {name!r} is no short name such as two-cores or h100")
    return Machine(name, model[1] if model else platform.machine(), cores, round(memory), gpu, platform.release())


def read_load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def now() -> datetime:
    """Return this moment in UTC."""
    return datetime.now(UTC)


def _name_gpu() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return names.splitlines()[0].strip() if names.strip() else ""


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
