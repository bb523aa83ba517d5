"""The suites that a deployment's monitors have mounted: what serves is judged by them while the spec has a Problem.

They are in the deployment's accuracy ConfigMap, which the operator alone writes. So they count whether they are trusted
today or not, and whatever has become of the ConfigMap or the chart that they were copied from.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.settings import FORMER_SUITE_FILES, SUITE_FILES
from r1plus_contract.suites.suite import SuiteError, read_suite
from r1plus_operator.plan.manifests.children import build_suite_files
from r1plus_operator.plan.manifests.drift import fold_texts
from r1plus_operator.plan.observation import Json, SuiteSource


@dataclass(frozen=True, slots=True)
class MountedSuites:
    """What is mounted, as far as it is at hand."""

    spec_suite: SuiteSource | None = None
    """The suite that the spec asked for."""
    former: SuiteSource | None = None
    """The effective suite, where that is still the former one; else None."""
    has_unread: bool = False
    """Whether one of them is mounted and is not at hand, so that the ConfigMap has to be fetched."""


def find_mounted_suites(accuracy: Json | None, at_hand: Iterable[SuiteSource]) -> MountedSuites:
    """Return the suites of a live accuracy ConfigMap among those at hand.

    The caches keep digests of its texts only, so a suite is found where its texts are the mounted ones byte for byte.
    """
    live = _suite_texts(accuracy)
    usable = [source for source in at_hand if source.suite]

    def find(files: tuple[str, str, str]) -> SuiteSource | None:
        header, texts = files[0], {name: live[name] for name in files if name in live}
        # Headers first: the items may have a megabyte.
        same = (source for source in usable if _fold({header: source.header_text})[header] == texts.get(header))
        return next((source for source in same if _fold(build_suite_files(source, *files)) == texts), None)

    spec_suite, former = find(SUITE_FILES), find(FORMER_SUITE_FILES)
    has_unread = (SUITE_FILES[0] in live and spec_suite is None) or (FORMER_SUITE_FILES[0] in live and former is None)
    return MountedSuites(spec_suite, former, has_unread)


def read_mounted_suites(texts: Mapping[str, str]) -> tuple[SuiteSource, ...]:
    """Return the suites in the texts of an accuracy ConfigMap: of any scorer version, signed or not."""
    sources = []
    for header, items, reference in (SUITE_FILES, FORMER_SUITE_FILES):
        if header not in texts or items not in texts:
            continue
        try:
            suite = read_suite(texts[header], texts[items])
        except SuiteError:
            continue  # It was altered, so that nothing can be judged by it.
        name = suite.header.name
        sources.append(SuiteSource(name, texts[header], texts[items], suite, reference_text=texts.get(reference, "")))
    return tuple(sources)


def hash_mounted_suites(accuracy: Json) -> str:
    """Return the sha256 of the mounted suites, in hex."""
    return hashlib.sha256(dumps(_suite_texts(accuracy)).encode()).hexdigest()


def _suite_texts(accuracy: Json | None) -> Json:
    """Return the suites' files, folded."""
    texts = (accuracy or {}).get("data") or {}
    return _fold({name: texts[name] for name in (*SUITE_FILES, *FORMER_SUITE_FILES) if name in texts})


def _fold(texts: Json) -> Json:
    return dict(fold_texts({"kind": "ConfigMap", "data": texts})["data"])
