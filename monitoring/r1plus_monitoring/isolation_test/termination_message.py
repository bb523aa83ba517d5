"""The termination message, within the limit of the kubelet: a truncated message is not JSON, and all findings are
lost."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.isolation import AttemptFinding, AttemptOutcome, Findings
from r1plus_contract.process.termination import MAX_MESSAGE

_LATEST = 9_999_999
"""More milliseconds than a container of the probe may live."""


def minimal_size(names: Iterable[str]) -> int:
    """Return the bytes of the longest findings under these names, without details."""
    return _size(Findings(tuple(AttemptFinding(name, AttemptOutcome.FAILED, late=_LATEST) for name in names)))


def encode_findings(findings: Findings) -> str:
    """Encode the findings as canonical JSON, with as much of each detail as fits; no finding is dropped.

    The contract counts characters, the kubelet counts bytes; this counts bytes.
    """
    lengths = range(max((len(one.d) for one in findings.tries), default=0) + 1)
    fitting_lengths = bisect_right(lengths, MAX_MESSAGE, key=lambda most: _size(_shorten(findings, most)))
    return dumps(_shorten(findings, max(0, fitting_lengths - 1)))


def _shorten(findings: Findings, most: int) -> Findings:
    return Findings(tuple(replace(one, d=one.d[:most]) for one in findings.tries))


def _size(findings: Findings) -> int:
    return len(dumps(findings).encode())
