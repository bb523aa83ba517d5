"""`r1plus suite`: from candidates to a ConfigMap that the operator takes, and what is refused on the way, in words."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from r1plus_cli.cluster.interface import Cluster
from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.suite import diff
from r1plus_cli.suite.answer_sources import EngineOptions, open_sources
from r1plus_cli.suite.storage import load, render_manifest, save
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.settings import REFERENCE_FILE
from r1plus_contract.names import PORT_GRPC, PORT_HTTP
from r1plus_contract.suites.suite import Item, SuiteSampling, load_suite
from r1plus_contract.suites.suite_baseline import BaselineFigures, Measurement
from r1plus_contract.suites.suite_files import SuiteFiles, key_id
from r1plus_monitoring.curate.asking import AskingCondition
from r1plus_operator.observe import suite_projection
from r1plus_operator.observe.suite_signature import KeyPair, find_signer, generate_key, sign
from r1plus_operator.plan.settings import SuiteTrust
from support.cli import command
from support.cli.fake_triton import serving
from support.golden_suites import BAD, NAME, baseline_of, files_of, with_item
from support.plan.world import CONFIG, ROOT, World
from support.waiting import DEADLINE_SECONDS

SMALL = ("--min-items", "8", "--min-per-stratum", "4")


run = partial(command.run, "suite")


def written(folder: Path, files: SuiteFiles) -> Path:
    save(folder, files)
    return folder


def key_file(path: Path, key: KeyPair) -> Path:
    path.write_bytes(key.encode_pem())
    return path


# -- The whole way -----------------------------------------------------------------------------------------------------

CANDIDATES = [
    Item(f"{stratum}-{n:02}", stratum, f"{stratum} {n:02}?", "contains", (f"answer {n:02}",))
    for stratum in ("loans", "savings", "small")
    for n in range(12 if stratum != "small" else 3)
]
NEVER, ALONE, ONCE = "loans 00?", "loans 01?", "savings 02?"


class Forgetful:
    """An engine that is wrong about one thing always, about one when asked alone, about one when asked again.

    It gives no answer before two are asked for at once.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._two = threading.Event()

    def __call__(self, prompt: str, beside: int) -> str:
        again = prompt in self.asked
        self.asked.append(prompt)
        if beside > 1:
            self._two.set()
        assert self._two.wait(DEADLINE_SECONDS)
        wrong = prompt == NEVER or (prompt == ALONE and beside == 1) or (prompt == ONCE and again)
        return "I do not know" if wrong else f"It is answer {prompt.split()[1].rstrip('?')}, of course"


def test_candidates_become_a_configmap_that_the_operator_takes(tmp_path: Path) -> None:
    candidates, folder, key, config_map = (tmp_path / n for n in ("c.jsonl", "bank-v1", "key.pem", "bank-v1.yaml"))
    candidates.write_text("".join(dumps(item) + "\n" for item in CANDIDATES))
    made = run("keygen", "--out", key)
    assert made.exit_code == 0, made.output
    public = made.stdout.strip()
    with serving(Forgetful()) as (engine, address):
        options = ("--served", address, "--batch", 8)
        more = ("--stop", "\n", "--size", 20, *SMALL)
        built = run("build", candidates, "--out", folder, "--name", NAME, "--reference", "bank-f16", "--family", "bank", *options, *more)  # fmt: skip
        assert built.exit_code == 0, built.output
        assert 2 <= engine.most_running <= 8
        assert engine.stops == {"\n"}
        suite = load_suite((folder / "suite.json").read_text(), (folder / "items.jsonl").read_text())
        measured = run("baseline", folder, *options)
        assert measured.exit_code == 0, measured.output
    prompts = {item.prompt for item in suite.items}
    assert len(prompts) == 20
    assert not prompts & {NEVER, ALONE, ONCE}
    assert set(suite.strata()) == {"loans", "savings"}, "a stratum of three says nothing"
    assert "meets spec.accuracy.threshold up to 1" in measured.output
    baseline = json.loads((folder / "baseline.json").read_text())
    orders = [{one["condition"] for one in baseline[part]} for part in ("selection", "baseline")]
    assert all(orders)
    assert not orders[0] & orders[1], "a baseline is of repeats that took no part in the choice"

    signed = run("sign", folder, "--key", key, "--configmap", config_map, "-n", "team", *SMALL)
    assert signed.exit_code == 0, signed.output
    verified = run("verify", config_map, "--trust", public, *SMALL)
    assert verified.exit_code == 0, verified.output
    assert f"signed by key {key_id(public)}" in verified.output
    assert "recorded answers get their recorded scores" in verified.output

    body = yaml.safe_load(config_map.read_text())
    assert body["metadata"]["labels"] == {"r1plus.ai/suite": NAME}
    source = suite_projection.read_suite({**body, "metadata": {**body["metadata"], "uid": "u"}})
    world = World({"tier": "full", "accuracy": {"suite": NAME, "suiteKeys": [public]}})
    world.config = replace(CONFIG, suite_trust=SuiteTrust())
    world.suites[source.name] = source
    world.settle()
    assert world.condition("QualityVerified")[:2] == ("Unknown", "NotYetKnown")
    assert world.one("ConfigMap", "credit-accuracy")["data"][REFERENCE_FILE] == (folder / REFERENCE_FILE).read_text()


def test_a_baseline_of_an_engine_that_lost_items_says_which_threshold_is_left(tmp_path: Path) -> None:
    folder = written(tmp_path / NAME, sign(files_of(), generate_key()))
    with serving(lambda prompt, _: "no" if prompt == "loans 1?" else f"answer {prompt[-2]}") as (_, address):
        first = run("baseline", folder, "--served", address, "--batch", 4)
        again = run("baseline", folder, "--served", address, "--batch", 4)
        other = run("baseline", folder, "--served", address, "--batch", 4, "--engine", "bank-q4")
    for told in (first, again, other):
        assert told.exit_code == 0, told.output
        assert "7 of 8 right; lost: loans-1" in told.output
        assert "meets spec.accuracy.threshold up to 0.875" in told.output
    figures = json.loads((folder / "baseline.json").read_text())
    assert [one["condition"] for one in figures["baseline"]] == ["batch 4, order 503", "batch 1, order 504"]
    assert [one["condition"] for one in figures["cross"]] == ["batch 4, order 505", "batch 1, order 506"]
    assert {one["engine"] for one in figures["baseline"]} == {"bank-f16"}
    assert {one["engine"] for one in figures["cross"]} == {"bank-q4"}
    assert not (folder / "suite.sig").exists(), "what is measured is signed, so the signature is void"


class ForwardingCluster:
    """A cluster that forwards ports: the seam that `--deployment` uses."""

    def __init__(self, grpc: str) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self._grpc = grpc

    def get_default_namespace(self) -> str:
        return "team-credit"

    @contextlib.contextmanager
    def forward(self, namespace: str, service: str, port: int) -> Iterator[str]:
        self.asked.append((namespace, service, port))
        yield self._grpc if port == PORT_GRPC else "127.0.0.1:1"


@pytest.mark.parametrize(
    ("namespace", "asked"), [(None, "team-credit"), ("team-b", "team-b")], ids=["of the context", "named"]
)
def test_a_deployment_is_asked_through_forwarded_ports(namespace: str | None, asked: str) -> None:
    with serving(lambda prompt, _: prompt.upper()) as (_, address):
        cluster = ForwardingCluster(address.partition(",")[2])
        heard: list[None] = []
        engines = EngineOptions(deployment="credit")
        with open_sources(
            engines, SuiteSampling(), lambda: cast(Cluster, cluster), namespace, lambda: heard.append(None)
        ) as found:
            given = found[0].asker.ask(CANDIDATES[:3], AskingCondition(batch=2, order=1))
    assert cluster.asked == [(asked, "credit", PORT_HTTP), (asked, "credit", PORT_GRPC)]
    assert {name: answer.text for name, answer in given.items()} == {i.id: i.prompt.upper() for i in CANDIDATES[:3]}
    assert len(heard) == 3


def test_an_engine_that_is_not_there_is_an_error_that_names_the_item(tmp_path: Path) -> None:
    folder = written(tmp_path / NAME, files_of())
    told = run("baseline", folder, "--served", "127.0.0.1:1,127.0.0.1:1")
    assert isinstance(told.exception, CliError)
    assert "The engine did not answer: item " in str(told.exception)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "No engine to ask: give --served HTTP,GRPC, --deployment NAME or --engine-dir DIR"),
        (("--served", "127.0.0.1:8000"), "--served: '127.0.0.1:8000' is not HTTP,GRPC"),
        (("--engine-dir", "/nowhere"), "--engine-dir /nowhere: no such folder"),
        (("--served", "a:1,b:2", "--served", "a:1,b:2"), "A baseline needs one engine"),
    ],
    ids=["none", "half an address", "a folder that is not there", "two"],
)
def test_which_engine_is_asked_must_be_said(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    told = run("baseline", written(tmp_path / NAME, files_of()), *options)
    assert isinstance(told.exception, UsageError)
    assert words in str(told.exception)


def test_too_few_that_stay_right_are_told_with_the_figures_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("".join(dumps(item) + "\n" for item in CANDIDATES))
    with serving(Forgetful()) as (_, address):
        told = run("build", tmp_path / "c.jsonl", "--out", tmp_path / "new", "--name", NAME, "--reference", "e", "--served", address)  # fmt: skip
    assert isinstance(told.exception, CliError)
    assert "a suite needs 200 in 2" in str(told.exception)
    assert not (tmp_path / "new").exists()


def test_everything_that_is_wrong_with_candidates_and_options_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id":"a"}\n' + dumps(replace(CANDIDATES[0], answers=())) + "\n")
    written(tmp_path / "there", files_of())
    told = run("build", tmp_path / "c.jsonl", "--out", tmp_path / "there", "--name", "Bank", "--reference", " ", "--tier", "huge")  # fmt: skip
    assert told.exit_code == 1
    for words in (
        "6 problems",
        "--name: 'Bank' must be lower-case letters, digits and '-', end with its version such as -v1",
        "--tier: 'huge' is not one of full, lite, edge",
        "--reference: is empty",
        "already exists; a suite is never overwritten: use the next version",
        "c.jsonl:1: Item.stratum: missing",
        "c.jsonl:2: answers: is empty",
    ):
        assert words in told.output, told.output


# -- verify and sign ---------------------------------------------------------------------------------------------------


WITH_A_HEADER = {name: bad for name, bad in BAD.items() if name != "nothing at all"}


@pytest.mark.parametrize(("make", "words"), WITH_A_HEADER.values(), ids=WITH_A_HEADER)
@pytest.mark.parametrize("where", ["a folder", "a manifest"])
def test_a_bad_suite_is_refused_in_words_of_its_own(
    tmp_path: Path, make: Callable[[], SuiteFiles], words: str, where: str
) -> None:
    files, path = make(), tmp_path / "s.yaml"
    if where == "a folder":
        path = written(tmp_path / "s", files)
    elif len(files.items) > 10_000_000:
        path.write_text(dumps({"kind": "ConfigMap", "data": files.texts()}))  # YAML, too, and written in no time.
    else:
        path.write_text(render_manifest(files, None))
    told = run("verify", path, *SMALL)
    if path.is_file() and path.stat().st_size > 10_000_000:
        assert "bytes, more than 4083712: a ConfigMap cannot be that large" in str(told.exception)
        return
    assert told.exit_code == 1
    assert words in told.output, told.output
    key = key_file(tmp_path / "key.pem", generate_key())
    refused = run("sign", path, "--key", key, *SMALL)
    assert refused.exit_code == 1, "what is not sound is not signed"
    assert words in refused.output
    assert not load(path).signature


def test_an_unsigned_suite_is_told_of_and_refused_where_a_key_is_asked_for(tmp_path: Path) -> None:
    folder, key = written(tmp_path / NAME, files_of()), generate_key()
    assert "not signed" in run("verify", folder, *SMALL).output
    told = run("verify", folder, "--trust", key.public, *SMALL)
    assert (told.exit_code, "suite.sig: not signed; sign it: r1plus suite sign" in told.output) == (1, True)


def test_a_suite_signed_by_another_key_is_refused_and_both_are_named(tmp_path: Path) -> None:
    ours, foreign = generate_key(), generate_key()
    folder = written(tmp_path / NAME, sign(files_of(), foreign))
    told = run("verify", folder, "--trust", ours.public, *SMALL)
    assert told.exit_code == 1
    assert f"signed by key {key_id(foreign.public)}, not by {key_id(ours.public)}" in told.output
    assert run("verify", folder, "--trust", ours.public, "--trust", foreign.public, *SMALL).exit_code == 0


def test_a_suite_altered_after_signing_is_refused_though_its_hash_fits(tmp_path: Path) -> None:
    forged = replace(with_item(prompt="easier?"), signature=sign(files_of(), generate_key()).signature)
    told = run("verify", written(tmp_path / NAME, forged), *SMALL)
    assert (told.exit_code, "does not fit: a file was altered after it was signed" in told.output) == (1, True)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param(with_item(scorer="exact", answers=("It is (a)",)), None, id="an answer that its scorer takes"),
        pytest.param(with_item(scorer="choice", answers=("the answer is: b",)), "rates this answer wrong", id="an answer that its own scorer calls wrong"),
        pytest.param(with_item(scorer="near", answers=("42 +- 1",)), None, id="a form is no answer"),
        pytest.param(replace(files_of(), reference='{"answer":"no","finishReason":"stop","item":"loans-0","score":"correct"}\n'), "item loans-0: correct as recorded, incorrect now", id="a recorded answer that gets another score"),
    ],
)  # fmt: skip
def test_the_live_scorers_have_their_say(tmp_path: Path, files: SuiteFiles, words: str | None) -> None:
    told = run("verify", written(tmp_path / NAME, files), *SMALL)
    assert (told.exit_code == 0) == (words is None), told.output
    assert (words or "sound") in told.output


def test_a_small_suite_is_unwise_and_says_so_unless_it_is_wanted(tmp_path: Path) -> None:
    folder = written(tmp_path / NAME, files_of())
    told = run("verify", folder)
    assert told.exit_code == 1
    assert "8 items, fewer than 200" in told.output
    assert "stratum loans: 4 items, fewer than 50" in told.output
    assert run("verify", folder, *SMALL).exit_code == 0
    assert run("verify", folder, "--min-items", 9, "--min-per-stratum", 4).exit_code == 1
    assert run("verify", folder, "--min-items", 8, "--min-per-stratum", 5).exit_code == 1


@pytest.mark.parametrize(
    "name", ["smollm2-full-v1", "smollm2-lite-v1", "smollm2-edge-v1", "qwen-lite-v1", "qwen-full-v1"]
)
def test_the_shipped_suites_are_sound(name: str) -> None:
    told = run("verify", ROOT / "monitoring" / "suites" / name)
    assert told.exit_code == 0, told.output
    assert "shipped with this version" in told.output


def test_the_baseline_says_which_threshold_is_left(tmp_path: Path) -> None:
    files = baseline_of(files_of(), ("batch 1", "loans", 2, 4), ("batch 1", "savings", 0, 4))
    told = run("verify", written(tmp_path / NAME, files), *SMALL).output
    assert "Lowest: 6 of 8 (batch 1); meets spec.accuracy.threshold up to 0.75" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Secret", "not one ConfigMap"),
        ("kind: ConfigMap\ndata: {suite.json: 1}", "data: not an object of texts"),
        ("{", "cannot be read"),
        ("x" * 5_000_000, "5000000 bytes, more than"),
    ],
    ids=["another kind", "data that is no text", "no YAML", "more than a ConfigMap holds"],
)
def test_a_manifest_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    told = run("verify", tmp_path / "m.yaml")
    assert isinstance(told.exception, UsageError)
    assert words in str(told.exception)


def test_what_is_no_suite_at_all(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "has no suite.json"), (tmp_path / "x", "neither a folder nor a manifest")):
        told = run("verify", path)
        assert isinstance(told.exception, UsageError)
        assert words in str(told.exception)


def test_a_key_is_for_its_owner_alone_and_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "key.pem"
    assert run("keygen", "--out", out).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    before = out.read_bytes()
    told = run("keygen", "--out", out)
    assert isinstance(told.exception, CliError)
    assert "a key is never overwritten" in str(told.exception)
    assert out.read_bytes() == before


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    told = run("sign", written(tmp_path / NAME, files_of()), "--key", tmp_path / "key.pem", *SMALL)
    assert isinstance(told.exception, UsageError)
    assert "not a private key in PEM" in str(told.exception)


def test_a_manifest_is_signed_in_place_and_keeps_what_else_it_holds(tmp_path: Path) -> None:
    key, path = generate_key(), tmp_path / "m.yaml"
    body = yaml.safe_load(render_manifest(files_of(), "team"))
    body["metadata"]["annotations"] = {"owner": "risk"}
    path.write_text(yaml.safe_dump(body))
    assert run("sign", path, "--key", key_file(tmp_path / "key.pem", key), *SMALL).exit_code == 0
    after = yaml.safe_load(path.read_text())
    assert after["metadata"] == body["metadata"]
    assert find_signer(load(path)) == key.public


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=60)


@given(TEXTS)
def test_a_manifest_keeps_every_character(text: str) -> None:
    files = with_item(prompt=text.strip() or "x", answers=("ä 🙂 \u2028 \u0085 # : |",))
    found = yaml.safe_load(render_manifest(files, None))["data"]
    assert SuiteFiles.of(found) == files


# -- diff --------------------------------------------------------------------------------------------------------------


def test_two_suites_differ_in_items_strata_and_what_must_be_scored_again(tmp_path: Path) -> None:
    old = written(tmp_path / "old", files_of())
    items = (
        Item("loans-0", "loans", "loans 0?", "contains", ("answer 0", "zero")),
        *(Item(f"loans-{n}", "loans", f"loans {n}?", "contains", (f"answer {n}",)) for n in (1, 2, 4)),
        *(Item(f"savings-{n}", "savings", f"savings {n}?", "contains", (f"answer {n}",)) for n in range(5)),
    )
    told = run("diff", old, written(tmp_path / "new", files_of(items)))
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [
        "added 2: loans-4, savings-4",
        "removed 1: loans-3",
        "changed 1: loans-0 (answers)",
        "stratum savings: 4 -> 5 items",
        "to score again: 3 of 9 items, since the others are asked and scored as before: loans-0, loans-4, savings-4",
        "verdicts: every revision is gated again, since a verdict belongs to the hash of the whole suite",
    ]


def test_another_way_of_asking_makes_every_item_new(tmp_path: Path) -> None:
    old = written(tmp_path / "old", files_of())
    told = run("diff", old, written(tmp_path / "new", files_of(sampling=SuiteSampling(max_new_tokens=5, stop=("\n",)))))
    assert "sampling.maxNewTokens: 24 -> 5" in told.stdout
    assert "to score again: 8 of 8 items, since items are asked or scored differently" in told.stdout


def test_the_same_suite_does_not_differ_from_itself(tmp_path: Path) -> None:
    old = written(tmp_path / "old", files_of())
    told = run("diff", old, written(tmp_path / "new", sign(files_of(), generate_key())))
    assert (told.exit_code, told.stdout) == (0, "")


def test_a_suite_that_is_not_sound_is_compared_with_none(tmp_path: Path) -> None:
    old = written(tmp_path / "old", files_of())
    told = run("diff", old, written(tmp_path / "new", BAD["altered"][0]()))
    assert isinstance(told.exception, CliError)
    assert "sha256 is" in str(told.exception)


def measured(engine: str, condition: str, correct: int, *lost: str) -> Measurement:
    return Measurement(engine, condition, 8, correct, {}, lost)


def test_two_baselines_differ_by_engine_and_condition(tmp_path: Path) -> None:
    old = BaselineFigures(
        "s", baseline=(measured("e", "b1", 7, "x"), measured("e", "b2", 8)), cross=(measured("q", "b1", 6, "x", "y"),)
    )
    new = BaselineFigures(
        "s", baseline=(measured("e", "b1", 7, "y"), measured("e", "b3", 8)), cross=(measured("q", "b1", 6, "x", "y"),)
    )
    paths = []
    for name, figures in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "baseline.json")
        paths[-1].write_text(dumps(figures))
    told = run("diff", *paths)
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [
        "e, b1: 7 of 8 -> 7 of 8 right; lost y; regained x",
        "e, b2: no longer measured",
        "e, b3: 8 of 8 right, not measured before",
    ]
    assert list(diff.compare_figures(old, old)) == []


def test_baselines_beside_two_suites_are_compared_as_well(tmp_path: Path) -> None:
    none, some = (baseline_of(files_of(), ("b", "loans", lost, 4), ("b", "savings", 0, 4)) for lost in (0, 1))
    told = run("diff", written(tmp_path / "old", none), written(tmp_path / "new", some))
    assert told.stdout.splitlines() == ["bank-f16, b: 8 of 8 -> 7 of 8 right"]


@pytest.mark.parametrize("command", ["keygen", "build", "baseline", "verify", "sign", "diff"])
def test_every_command_teaches(command: str) -> None:
    told: Any = run(command, "--help")
    assert told.exit_code == 0
    assert len(told.output) > 400
