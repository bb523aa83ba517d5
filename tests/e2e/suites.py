"""Golden suites that tenants bring: some items of a shipped one, signed with a key of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from e2e.kube import Json, Kube
from r1plus_cli.suite.storage import render_manifest
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Item, Suite, SuiteHeader, encode_items, load_suite, suite_hash
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_contract.suites.suite_reference import RecordedAnswer, read_reference, write_reference
from r1plus_monitoring.scoring.scorers import score
from r1plus_operator.observe.suite_signature import KeyPair, sign

SUITES = Path(__file__).parents[2] / "monitoring" / "suites"


def shipped(name: str) -> Suite:
    """One of the suites that come with the product."""
    return load_suite((SUITES / name / "suite.json").read_text(), (SUITES / name / "items.jsonl").read_text())


@dataclass(frozen=True, slots=True)
class OwnSuite:
    """A tenant's own suite: some items of a shipped one, signed with the tenant's key."""

    suite: Suite
    files: SuiteFiles
    key: KeyPair

    @property
    def held(self) -> Json:
        """`spec.accuracy` of a deployment that is held to it."""
        return {"suite": self.suite.header.name, "suiteKeys": [self.key.public]}

    def put(self, kube: Kube, namespace: str) -> None:
        """As a tenant would: `kubectl apply` of the ConfigMap that `r1plus suite sign` writes."""
        kube.kubectl("apply", "-f", "-", given=render_manifest(self.files, namespace))

    def with_reference(self, text: str) -> "OwnSuite":
        """The same suite with other recorded answers, signed again."""
        return replace(self, files=sign(replace(self.files, reference=text), self.key))

    def with_items(self, items: Sequence[Item], name: str = "") -> "OwnSuite":
        """Other items under the same name or another, the recorded answers scored by them, signed by the same key."""
        by_id = {item.id: item for item in items}
        recorded = [
            replace(one, score=score(by_id[one.item], one.answer, one.finish_reason))
            for one in read_reference(self.files.reference, self.suite)
        ]
        return sealed(replace(self.suite.header, name=name or self.suite.header.name), items, recorded, self.key)


def own_suite(tier: str, key: KeyPair, per_stratum: int = 20) -> OwnSuite:
    """The first items of each stratum of the tier's shipped suite, with the answers recorded for them."""
    name = f"smollm2-{tier}-v1"
    whole, strata = shipped(name), dict[str, int]()
    chosen = []
    for item in whole.items:
        strata[item.stratum] = strata.get(item.stratum, 0) + 1
        if strata[item.stratum] <= per_stratum:
            chosen.append(item)
    kept = {item.id for item in chosen}
    recorded = read_reference((SUITES / name / "reference.jsonl").read_text(), whole)
    header = replace(whole.header, name=f"own-{tier}-v1")
    return sealed(header, chosen, [one for one in recorded if one.item in kept], key)


def sealed(header: SuiteHeader, items: Sequence[Item], recorded: Sequence[RecordedAnswer], key: KeyPair) -> OwnSuite:
    """These items as a suite, signed. Of `header` stay the name, the sampling and what it is about."""
    text = encode_items(items)
    digest = suite_hash(text, header.sampling, header.scorer_version)
    header_text = dumps(replace(header, items=len(items), sha256=digest))
    files = SuiteFiles(header_text, text, write_reference(recorded))
    return OwnSuite(load_suite(header_text, text), sign(files, key), key)
