"""Last words that the kubelet keeps whole: a message that is cut is no JSON, and then nothing was found at all."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from r1plus_contract.isolation import Findings, Outcome, Try
from r1plus_contract.jsonable import dumps
from r1plus_contract.termination import MAX_MESSAGE

_LATEST = 9_999_999
"""More milliseconds than a container of the prober's may live."""


def bare_size(names: Iterable[str]) -> int:
    """Bytes of the longest findings under these names, without details."""
    return _size(Findings(tuple(Try(name, Outcome.FAILED, late=_LATEST) for name in names)))


def last_words(findings: Findings) -> str:
    """The findings as canonical JSON, with as much of each detail as fits; every try stays, however it ended.

    The contract counts characters, the kubelet bytes: so bytes are counted here.
    """
    lengths = range(max((len(one.d) for one in findings.tries), default=0) + 1)
    fitting = bisect_right(lengths, MAX_MESSAGE, key=lambda most: _size(_shortened(findings, most)))
    return dumps(_shortened(findings, max(0, fitting - 1)))


def _shortened(findings: Findings, most: int) -> Findings:
    return Findings(tuple(replace(one, d=one.d[:most]) for one in findings.tries))


def _size(findings: Findings) -> int:
    return len(dumps(findings).encode())
