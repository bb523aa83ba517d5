"""What rooms agree on: a document reads back as it was written, and anything else is refused by name."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.engine.delivery import build_listing, digest_folder, parse_listing
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.monitor.admission import Admission, read_token, write_token
from r1plus_contract.monitor.identity import ServingIdentity, document_digest
from r1plus_contract.monitor.settings import KnownVerdicts, MonitorSettings
from r1plus_contract.suites.suite import (
    Item,
    Suite,
    SuiteError,
    SuiteHeader,
    SuiteSampling,
    encode_items,
    load_suite,
    suite_hash,
)
from r1plus_contract.verdict import (
    Gate,
    GateProgress,
    GateReport,
    MonitorReport,
    Phase,
    StratumFigures,
    SweepFigures,
    Verdict,
)

GATE = GateReport(
    Verdict.FAIL, "TooManyLost", "m", "i", "s", "h", "1", 0.98, 210, 9, 4, (StratumFigures("a", 50, 9, 2),)
)
REPORT = MonitorReport(
    "r",
    "i",
    Phase.WATCHING,
    Verdict.FAIL,
    "R",
    "m",
    gate=GATE,
    progress=GateProgress(1, 2, "t", is_short_check=True),
    sweep=SweepFigures(1, 2, 0.1, 0.9, "t"),
)
IDENTITY = ServingIdentity("e", "d", "c", "t", 32, 2048)
settings = MonitorSettings("s", "h", 0.98, Gate.ENFORCE, 6)


@pytest.mark.parametrize(
    "value", [GATE, REPORT, IDENTITY, settings, KnownVerdicts((GATE, GATE))], ids=lambda v: type(v).__name__
)
def test_a_document_reads_back_as_it_was_written(value: object) -> None:
    assert loads(type(value), dumps(value)) == value


def test_a_report_of_a_newer_monitor_is_read_without_what_is_new_in_it() -> None:
    text = dumps(REPORT)[:-1] + ',"novelty":1}'
    nested = text.replace('"lost":9', '"lost":9,"novelty":{"deep":[1]}')
    assert nested != text
    assert loads(MonitorReport, nested, tolerant=True) == REPORT
    with pytest.raises(ContractError, match=r"MonitorReport\.novelty: unknown field"):
        loads(MonitorReport, nested)


def test_a_report_that_leaves_counts_out_begins_at_zero() -> None:
    least = {"revision": "r", "identity": "i", "phase": "Watching", "verdict": "Fail", "reason": "R", "message": "m"}
    report = loads(MonitorReport, json.dumps(least))
    assert (report.sequence, report.prober_restarts) == (0, 0)


def test_a_tolerant_reader_still_misses_what_is_missing() -> None:
    with pytest.raises(ContractError, match=r"MonitorReport\.phase: missing"):
        loads(MonitorReport, dumps(REPORT).replace('"phase":"Watching",', ""), tolerant=True)


def test_more_values_than_a_reader_has_time_for_are_refused() -> None:
    kept = loads(KnownVerdicts, dumps(KnownVerdicts()), most_values=100)
    assert kept == KnownVerdicts()
    text = json.dumps({"more": [[1] * 96, {"a": 1}]})
    assert loads(KnownVerdicts, text, tolerant=True, most_values=100) == KnownVerdicts()
    with pytest.raises(ContractError, match="more than 99 values"):
        loads(KnownVerdicts, text, tolerant=True, most_values=99)


def test_an_identity_with_fields_of_another_version_has_the_digest_of_what_is_stored() -> None:
    stored = IDENTITY.document()
    assert document_digest(stored) == IDENTITY.digest()
    assert document_digest({**stored, "novelty": 1}) != IDENTITY.digest()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("{", ["not JSON"], id="no JSON"),
        pytest.param("[" * 100_000, ["not JSON"], id="nested without end"),
        pytest.param(dumps(settings).replace('"s"', '"\\ud800"'), ["MonitorSettings.suite"],
                     id="a character that is none"),
        pytest.param("[]", ["MonitorSettings", "an object"], id="not an object"),
        pytest.param(dumps(settings).replace('"gate"', '"gait"'), ["MonitorSettings.gait", "unknown field"],
                     id="an unknown field"),
        pytest.param(dumps(settings).replace(',"threshold":0.98', ""), ["MonitorSettings.threshold", "missing"],
                     id="a missing field"),
        pytest.param(dumps(settings).replace("Enforce", "enforce"), ["MonitorSettings.gate", "Enforce, Observe"],
                     id="an unknown value"),
        pytest.param(dumps(settings).replace("0.98", '"0.98"'), ["MonitorSettings.threshold", "a number"],
                     id="a string for a number"),
        pytest.param(dumps(settings).replace(":6", ":true"), ["probesPerMinute", "type int"],
                     id="a boolean for an integer"),
        pytest.param(dumps(settings).replace("0.98", "9" * 400), ["MonitorSettings.threshold", "a finite number"],
                     id="an integer beyond any float"),
        pytest.param(dumps(settings).replace("0.98", "NaN"), ["MonitorSettings.threshold", "a finite number"],
                     id="no number at all"),
        pytest.param(dumps(settings).replace(":6", ":" + "9" * 400), ["probesPerMinute", "type int"],
                     id="an integer that nothing can be computed from"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(text: str, words: list[str]) -> None:
    with pytest.raises(ContractError) as refused:
        loads(MonitorSettings, text)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "field", ["engine", "engine_digest", "config_digest", "triton_image", "batch", "context", "gpu_product"]
)
def test_every_part_of_the_identity_counts(field: str) -> None:
    other = 1 if isinstance(getattr(IDENTITY, field), int) else "other"
    assert replace(IDENTITY, **{field: other}).digest() != IDENTITY.digest()


def test_a_verdict_is_found_for_exactly_what_was_scored() -> None:
    known = KnownVerdicts((GATE,))
    assert known.find("i", "h", "1") == GATE
    for question in (("x", "h", "1"), ("i", "x", "1"), ("i", "h", "2")):
        assert known.find(*question) is None


ADMISSION = Admission(IDENTITY.digest(), Gate.ENFORCE, Verdict.PASS, "h", "2026-01-01T00:00:00Z")


def test_a_token_reads_back_and_its_first_line_is_the_identity_alone(tmp_path: Path) -> None:
    write_token(tmp_path, ADMISSION)
    assert read_token(tmp_path) == ADMISSION
    assert (tmp_path / "token").read_text().splitlines()[0] == IDENTITY.digest()


@pytest.mark.parametrize(
    "text",
    [None, "", "x\n", "x\n{}\n", f"other\n{dumps(ADMISSION)}\n"],
    ids=["absent", "empty", "one line", "no admission", "two identities"],
)
def test_a_damaged_token_admits_nobody(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    assert read_token(tmp_path) is None


def folder(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_engines_digest_is_its_files_not_their_order_or_place(tmp_path: Path) -> None:
    files = {"model.bin": "1", "sub/tokenizer.json": "2"}
    one = folder(tmp_path / "one", files)
    two = folder(tmp_path / "two", dict(reversed(files.items())))
    assert digest_folder(one) == digest_folder(two)
    listing = build_listing(one)
    assert [line.split("  ")[1] for line in listing.splitlines()] == ["model.bin", "sub/tokenizer.json"]
    assert list(parse_listing(listing)) == ["model.bin", "sub/tokenizer.json"]


@pytest.mark.parametrize(
    "files",
    [{"a": "2"}, {"b": "1"}, {"a": "1", "c": ""}, {"sub/a": "1"}, {}],
    ids=["another content", "another name", "one more file", "another folder", "a missing file"],
)
def test_any_difference_changes_the_digest(tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "two").mkdir()
    assert digest_folder(folder(tmp_path / "one", {"a": "1"})) != digest_folder(folder(tmp_path / "two", files))


def test_an_engine_with_a_link_has_no_digest(tmp_path: Path) -> None:
    folder(tmp_path, {"a": "1"})
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ValueError, match="b: an engine may hold plain files only"):
        digest_folder(tmp_path)


@dataclass(frozen=True)
class Draft:
    """A suite about to be spoiled."""

    items: tuple[Item, ...] = tuple(Item(f"i{i}", "s", "q", "contains", ("a",)) for i in range(3))
    sampling: SuiteSampling = field(default_factory=SuiteSampling)
    count: int = 3
    version: str = "1"

    def load(self, *, hashed: str | None = None, text: str | None = None) -> Suite:
        body = encode_items(self.items) if text is None else text
        digest = hashed or suite_hash(body, self.sampling, self.version)
        header = SuiteHeader("n", "1.0.0", "f", "full", "", "e", digest, self.count, self.sampling, self.version)
        return load_suite(dumps(header), body)


def test_a_sound_suite_loads() -> None:
    assert Draft().load().strata() == {"s": 3}


TWICE = (Item("a", "s", "q", "exact", ("x",)), Item("a", "s", "q", "exact", ("x",)))


@pytest.mark.parametrize(
    ("draft", "given", "word"),
    [
        pytest.param(Draft(), {"hashed": "0" * 64}, "promises 0000", id="a wrong hash"),
        pytest.param(Draft(), {"text": encode_items(Draft().items).replace('"q"', '"Q"'), "hashed": suite_hash(encode_items(Draft().items), SuiteSampling(), "1")}, "sha256 is", id="an altered item"),
        pytest.param(Draft(count=4), {}, "3 items", id="an item missing"),
        pytest.param(Draft(items=TWICE, count=2), {}, "unique", id="an item twice"),
        pytest.param(Draft(items=(Item("a", "s", "q", "exact", ()),), count=1), {}, "item a has no answer", id="an item without an answer"),
        pytest.param(Draft(items=(), count=0), {}, "0 items", id="no items"),
        pytest.param(Draft(version="9"), {}, "scorer version 9", id="another scorer's suite"),
        pytest.param(Draft(items=(Item("a", "s", "q" * 950_000, "exact", ("x",)),), count=1), {}, "larger than", id="too large"),
        pytest.param(Draft(), {"text": '{"id": 1}\n'}, "Item", id="not an item"),
    ],
)  # fmt: skip
def test_an_unsound_suite_is_refused_by_name(draft: Draft, given: dict[str, str], word: str) -> None:
    with pytest.raises(SuiteError, match=word):
        draft.load(**given)


@given(st.permutations(Draft().items))
def test_the_order_in_which_items_are_written_does_not_matter(items: list[Item]) -> None:
    assert encode_items(items) == encode_items(Draft().items)


def test_sampling_belongs_to_the_hash() -> None:
    text = encode_items(Draft().items)
    assert suite_hash(text, SuiteSampling(), "1") != suite_hash(text, SuiteSampling(max_new_tokens=25), "1")
    assert suite_hash(text, SuiteSampling(), "1") != suite_hash(text, SuiteSampling(), "2")
