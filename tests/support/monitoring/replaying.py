"""Recorded answers of the small suite's reference, mounted beside it, and a scorer that seems to break."""

import hashlib
import os
from dataclasses import replace

from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.monitor.settings import MonitorSettings
from r1plus_contract.suites.suite_reference import RecordedAnswer, write_reference
from r1plus_monitoring.scoring.sources import take_fingerprint
from support.monitoring.scripted import Pod

OWN = RecordedAnswer("additions-000", "yes", "stop", "correct")
WRONG = RecordedAnswer("additions-000", "no", "stop", "incorrect")
CUT = RecordedAnswer("capitals-001", "yes", "length", "incorrect")


def give(pod: Pod, *recorded: RecordedAnswer, promised: str | None = None) -> None:
    """Mount recorded answers, and the hash that the operator promises of them."""
    text = write_reference(recorded)
    (pod.accuracy / "reference.jsonl").write_text(text)
    settings = loads(MonitorSettings, (pod.accuracy / "settings.json").read_text())
    hash_ = hashlib.sha256(text.encode()).hexdigest() if promised is None else promised
    (pod.accuracy / "settings.json").write_text(dumps(replace(settings, reference_hash=hash_)))


def alter_unseen(pod: Pod, record: str = "reference.jsonl") -> None:
    """Make a record that no longer replays, though no file seems to have changed: as when the scorer itself breaks."""
    file, before = pod.accuracy / record, take_fingerprint(pod.accuracy)
    status = file.stat()
    with file.open("r+b") as text:
        text.write(file.read_bytes().replace(b'"answer":"yes"', b'"answer":"yeh"'))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert take_fingerprint(pod.accuracy) == before
