"""`r1plus advise`: what follows from figures, what is refused, and what a cluster has measured. Nothing is served here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_cli import local
from r1plus_cli.advice.candidates import (
    Sizes,
    explain_context,
    explain_none,
    find_candidates,
    select_engines,
)
from r1plus_cli.advice.figures import EngineFigures, Speed, recommend
from r1plus_cli.advice.recorded import read_recorded
from r1plus_cli.advice.report import Advice
from r1plus_cli.advice.results import Results, build_key
from r1plus_cli.errors import CliError
from r1plus_contract.history import Evaluation, Evaluations
from r1plus_contract.suites.suite import Suite
from r1plus_contract.verdict import GateReport, StratumFigures, Verdict
from r1plus_edge.start.machine import GIB, LABELS
from r1plus_operator.plan.observation import NodeFacts
from r1plus_policies.gate.verdict import GateReason
from support.cli.command import run
from support.edge.engines import write_catalog
from support.edge.suites import write_part
from support.tables import for_each

THRESHOLD = 0.98
ENGINES = local.load_engines(local.SHIPPED_CATALOG)
SUITE = "smollm2-edge-v1"
SPEED = Speed(100.0, 10.0, 0.1, 0.2, 0.95, 512 * 2**20)


def report(lost: int, *, strata: tuple[tuple[str, int], ...] = (), verdict: Verdict = Verdict.PASS) -> GateReport:
    """Return a gate's report on 100 items, in strata of 50."""
    names = strata or (("amount", lost), ("purpose", 0))
    return GateReport(
        verdict=verdict, reason=GateReason.PASSED, message="as counted", identity="i", suite="s-v1", suite_hash="0" * 64,
        scorer_version="1", threshold=0.001, items=100, lost=lost, allowed=99,
        strata=tuple(StratumFigures(name, 50, count, 50) for name, count in names),
    )  # fmt: skip


def figures(engine: str, tier: str, lost: int, *, answers: float | None = 10.0, **changes: Any) -> EngineFigures:
    """Return an engine's figures; `answers`: a second."""
    speed = replace(SPEED, answers_per_second=answers) if answers else None
    return EngineFigures(engine, tier, "this machine", report(lost, **changes), 16, speed=speed)


FULL, LITE, EDGE = figures("f", "full", 0, answers=5.0), figures("l", "lite", 1), figures("e", "edge", 40, answers=20.0)


@for_each(
    "measured, cheapest, following",
    {
        "the cheapest of those that meet it": ([FULL, LITE, EDGE], "l", "f"),
        "the smallest, where all meet it": ([FULL, figures("e", "edge", 0, answers=20.0)], "e", "f"),
        "the largest has no next one": ([FULL, EDGE], "f", None),
        "none meets it": ([EDGE], None, None),
        "no engine": ([], None, None),
        "a stratum alone is enough to miss it": (
            [figures("l", "lite", 2, strata=(("amount", 3), ("purpose", 0)))],
            None,
            None,
        ),
        "what a cluster measured has no cost, and comes after what has one": (
            [figures("c", "lite", 0, answers=None), FULL],
            "f",
            None,
        ),
        "it is all there is, and is named": ([figures("c", "lite", 0, answers=None)], "c", None),
        "a gate that failed for another reason is no Pass": (
            [figures("u", "lite", 0, verdict=Verdict.FAIL)],
            None,
            None,
        ),
    },
)
def test_it_names_the_cheapest_that_meets_the_threshold_and_the_next_tier(
    measured: list[EngineFigures], cheapest: str | None, following: str | None
) -> None:
    advice = recommend(measured, THRESHOLD, 0.08)
    assert (advice.cheapest and advice.cheapest.engine, advice.next and advice.next.engine) == (cheapest, following)
    assert advice.text


def test_the_text_says_what_the_next_tier_adds_and_costs() -> None:
    text = recommend([FULL, LITE], THRESHOLD, 0.36).text
    assert "l (tier lite): 99 of 100 right, 0.01 EUR for 1,000 answers" in text
    assert "full (f) would add +1 of 100 items, cost × 2.00" in text


def test_the_text_says_how_far_the_best_misses() -> None:
    assert "it lost 40, 2 are allowed" in recommend([EDGE], THRESHOLD, None).text


def test_the_interval_is_the_one_that_the_monitor_reports() -> None:
    from r1plus_monitoring.probe.sweeps import compute_figures

    own = figures("l", "lite", 3).interval
    sweep = compute_figures({str(n): n >= 3 for n in range(100)}, "")
    assert (own.lower, own.upper) == (sweep.lower, sweep.upper)


def test_a_thousand_answers_cost_what_the_machine_costs_meanwhile() -> None:
    # Ten answers a second take 100 seconds for a thousand: 1/36 of an hour.
    assert figures("l", "lite", 0).compute_cost(0.36) == pytest.approx(0.01)
    assert figures("c", "lite", 0, answers=None).compute_cost(0.36) is None


def test_what_other_work_took_of_the_machine_is_not_part_of_the_cost() -> None:
    alone = figures("l", "lite", 0)
    # Half the processor, half the pace.
    slowed = replace(alone, speed=replace(SPEED, answers_per_second=5.0, processor_share=0.5))
    assert slowed.compute_cost(0.36) == pytest.approx(alone.compute_cost(0.36))


def suite() -> Suite:
    source = local.load_suites(local.SHIPPED_SUITES)[SUITE].suite
    assert source is not None
    return source


def node(gib: float) -> NodeFacts:
    return NodeFacts("localhost", int(gib * GIB), 2.0, LABELS)


def test_each_engine_of_the_catalog_is_measured_or_listed_with_the_reason(tmp_path: Path) -> None:
    candidates, exclusions = find_candidates(ENGINES, suite(), Sizes(), node(8), tmp_path)
    assert {one.engine.name for one in candidates} | {one.engine for one in exclusions} == {one.name for one in ENGINES}
    assert {one.engine.spec.family for one in candidates} == {"smollm2"}
    assert all("published shape" in one.why for one in exclusions)
    assert all(float(one.spec.accuracy.threshold) < 0.01 for one in candidates)


DEMO = {one.name for one in ENGINES if one.spec.family == "smollm2"}


@for_each(
    "gib, sizes, left_out",
    {
        "too little memory for one": (1.9, Sizes(), {"smollm2-full-f16"}),
        "a batch that no memory holds": (2.0, Sizes(batch=32), DEMO),
        "with a short context it does": (3.0, Sizes(batch=8, context=256), set()),
        "a context shorter than the suite's answers": (8.0, Sizes(context=16), DEMO),
    },
)
def test_what_does_not_fit_this_machine_is_left_out(
    gib: float, sizes: Sizes, left_out: set[str], tmp_path: Path
) -> None:
    own = [one for one in ENGINES if one.name in DEMO]
    _, exclusions = find_candidates(own, suite(), sizes, node(gib), tmp_path)
    assert {one.engine for one in exclusions} == left_out


def test_an_engine_whose_files_are_elsewhere_is_left_out(tmp_path: Path) -> None:
    other = replace(next(one for one in ENGINES if one.name == "smollm2-edge-q4-1"), name="mine")
    _, (exclusion,) = find_candidates([other], suite(), Sizes(), node(8), tmp_path)
    assert "its files are not on this machine" in exclusion.why


@for_each(
    "family, names, selected",
    {
        "all engines of a family": (
            "qwen",
            [],
            ["qwen-edge-smollm2-f16", "qwen-full-q4-k-m", "qwen-lite-q4-1", "qwen-lite-q8-0"],
        ),
        "one of another family beside one of it": (
            "qwen",
            ["smollm2-lite-q8-0", "qwen-lite-q8-0"],
            ["smollm2-lite-q8-0", "qwen-lite-q8-0"],
        ),
        "without a family, all but what is shipped apart": ("", [], [one.name for one in ENGINES]),
    },
)
def test_a_family_and_names_say_which_engines_are_compared(family: str, names: list[str], selected: list[str]) -> None:
    engines = local.load_engines(local.SHIPPED_CATALOG, family)
    assert [one.name for one in select_engines(names, engines, family)] == selected


def test_where_none_fits_the_error_names_each_and_what_would_do(tmp_path: Path) -> None:
    engines = [one for one in ENGINES if one.spec.family == "smollm2"]
    _, exclusions = find_candidates(engines, suite(), Sizes(), node(0.3), tmp_path)
    text = str(explain_none(exclusions, engines, node(0.3), suite()))
    assert text.count("needs ") >= len(engines)
    assert "The smallest is smollm2-edge-q4-1" in text


def test_an_item_that_no_tokenizer_fits_into_the_context_is_named() -> None:
    long = replace(suite().items[0], prompt="x" * 5000)
    text = explain_context(replace(suite(), items=(long,)), 256)
    assert long.id in text
    assert "5000 bytes, at most 3712 can fit" in text


def refusals(folder: Path) -> dict[str, tuple[list[str], str]]:
    broken = write_part(folder / "broken-v1")
    (broken / "items.jsonl").write_text((broken / "items.jsonl").read_text().replace("capital", "Capital", 1))
    known = ["--suite", SUITE]
    (folder / "file").write_text("")
    (folder / "own").mkdir()
    write_catalog(folder / "own", folder / "catalog")
    return {
        "a suite that nobody knows": (["--suite", "nonesuch"], "shipped: qwen-full-v1, qwen-lite-v1, smollm2-edge-v1"),
        "a suite that was altered": (["--suite", str(broken)], "sha256 is"),
        "a folder without a suite": (["--suite", str(folder)], "has no suite.json"),
        "an engine that nobody knows": ([*known, "--engines", "nonesuch"], "no engine 'nonesuch' in the catalog; those with files are smollm2"),
        "an engine of a family that is shipped apart": ([*known, "--engines", "qwen-lite-q8-0"], "no engine 'qwen-lite-q8-0' in the catalog; those with files are smollm2-edge-q4-1, smollm2-full-f16, smollm2-full-q4-1, smollm2-lite-q8-0; --family adds those of qwen"),
        "a family that a catalog of one's own lacks": ([*known, "--catalog", str(folder / "catalog"), "--family", "nonesuch"], "give one of smollm2, or --catalog with a folder"),
        "an engine twice": ([*known, "--engines", "smollm2-edge-q4-1,smollm2-edge-q4-1"], "named twice"),
        "a family that the catalog lacks": ([*known, "--family", "nonesuch"], "no engine of family 'nonesuch'; give one of qwen, r1plus, smollm2, or --catalog with"),
        "a price in words": ([*known, "--price", "cheap"], "'cheap' is no price above zero"),
        "a price of nothing": ([*known, "--price", "0"], "is no price above zero"),
        "a price without end": ([*known, "--price", "inf"], "is no price above zero"),
        "a threshold in percent": ([*known, "--threshold", "98"], "--threshold"),
        "a data folder that is a file": ([*known, "--data", str(folder / "file")], "name a folder that you may write"),
        "a data folder that Triton cannot take": ([*known, "--data", str(folder / "a b")], "has the character ' '"),
        "a batch that no engine has": ([*known, "--data", str(folder / "data"), "--batch", "1024"], "No engine can be measured on this machine"),
    }  # fmt: skip


REFUSALS = (
    "a suite that nobody knows",
    "a suite that was altered",
    "a folder without a suite",
    "an engine that nobody knows",
    "an engine of a family that is shipped apart",
    "a family that a catalog of one's own lacks",
    "an engine twice",
    "a family that the catalog lacks",
    "a price in words",
    "a price of nothing",
    "a price without end",
    "a threshold in percent",
    "a data folder that is a file",
    "a data folder that Triton cannot take",
    "a batch that no engine has",
)


@pytest.mark.parametrize("what", REFUSALS)
def test_bad_input_is_refused_before_anything_is_served(what: str, tmp_path: Path) -> None:
    words, text = refusals(tmp_path)[what]
    result = run("advise", *words)
    assert result.exit_code in (1, 2)
    assert text in (str(result.exception) + result.output)


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from r1plus_edge.data_folder import DataFolder, hold\n"
        "with hold(DataFolder(Path(sys.argv[1]))): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"held\n"
            result = run("advise", "--suite", SUITE, "--engines", "smollm2-edge-q4-1", "--data", tmp_path)
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    assert f"r1plus advise runs there already (pid {holder.pid})" in str(result.exception)


def test_figures_are_found_again_until_something_of_what_was_measured_changes(tmp_path: Path) -> None:
    results, measured = Results(tmp_path), figures("smollm2-edge-q4-1", "edge", 1)
    engines = [one for one in ENGINES if one.name == "smollm2-edge-q4-1"]
    (candidate,), _ = find_candidates(engines, suite(), Sizes(), node(8), tmp_path)
    key = build_key(candidate, suite(), ("triton@1",), 2.0)
    results.save(key, measured)

    assert results.load(key) == measured
    (smaller,), _ = find_candidates(engines, suite(), Sizes(batch=4), node(8), tmp_path)
    others = [
        build_key(candidate, suite(), ("triton@2",), 2.0),
        build_key(candidate, suite(), ("triton@1",), 4.0),
        build_key(smaller, suite(), ("triton@1",), 2.0),
        build_key(candidate, replace(suite(), header=replace(suite().header, sha256="1" * 64)), ("triton@1",), 2.0),
    ]
    assert len({key, *others}) == 5
    assert [results.load(other) for other in others] == [None] * 4


def test_probes_without_an_answer_are_counted_from_what_the_monitor_exposes() -> None:
    from r1plus_cli.advice.trial import count_unanswered
    from r1plus_contract.metrics import PROBE_RESULTS_TOTAL

    counts = {"correct": 90, "incorrect": 5, "timeout": 3, "error": 2, "unscorable": 7}
    series = [f'{PROBE_RESULTS_TOTAL}{{task="amount",outcome="{name}"}} {count}.0' for name, count in counts.items()]
    other = 'r1plus_service_probe_results_total{outcome="timeout"} 50.0'
    assert count_unanswered("\n".join(["# HELP ...", *series, other])) == 5
    assert count_unanswered("") == 0


def test_a_file_of_figures_that_is_cut_off_is_measured_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.save("key", figures("e", "edge", 1))
    file = tmp_path / "results" / "key.json"
    file.write_text(file.read_text()[:100])
    assert results.load("key") is None


class Catalog:
    """The part of a cluster that is read."""

    def list_engines(self) -> list[dict[str, Any]]:
        return [
            {"metadata": {"name": "mine"}, "spec": {"tier": "full"}},
            {"metadata": {"name": "other"}, "spec": {"tier": "lite"}},
            {"metadata": {"name": "vectors"}, "spec": {"kind": "embedding"}},
        ]

    def list_deployments(self, namespace: str | None) -> list[dict[str, Any]]:
        meta = {"namespace": namespace, "name": "credit"}
        return [{"metadata": meta, "status": {"engine": "other"}}, {"metadata": meta}]


def evaluation(engine: str, lost: int, **changes: Any) -> Evaluation:
    own = replace(report(lost), **{"suite_hash": suite().header.sha256, "items": len(suite().items), **changes})
    return Evaluation("team", "credit", "credit-1", engine, own)


def read_cluster(read: Callable[[], Evaluations]) -> Any:
    return read_recorded(Catalog(), read, suite(), "team")  # type: ignore[arg-type]


def test_of_a_cluster_the_newest_gate_on_this_very_suite_counts() -> None:
    items = (evaluation("mine", 1), evaluation("mine", 9), evaluation("other", 0, suite_hash="of another suite"))
    recorded = read_cluster(lambda: Evaluations(items))
    assert [(one.engine, one.tier, one.source, one.report.lost) for one in recorded.figures] == [
        ("mine", "full", "team/credit", 1)
    ]
    (exclusion,) = recorded.exclusions
    assert exclusion.engine == "other"
    assert "it serves team/credit, but no gate on smollm2-edge-v1 is recorded" in exclusion.why


@for_each("items, lost", {
    "more items than the suite has": (2**62, 0),
    "more items lost than there are": (None, 10_000),
    "fewer items lost than none": (None, -1),
    "no item": (0, 0),
})  # fmt: skip
def test_a_gate_that_this_suite_does_not_allow_is_no_advice(items: int | None, lost: int) -> None:
    forged = evaluation("mine", lost, items=len(suite().items) if items is None else items)
    recorded = read_cluster(lambda: Evaluations((forged,)))
    assert recorded.figures == ()
    assert [one.engine for one in recorded.exclusions] == ["mine", "other"]


def test_a_registry_that_does_not_answer_is_named_and_the_rest_goes_on() -> None:
    def fail() -> Evaluations:
        raise CliError("it is away")

    recorded = read_cluster(fail)
    assert "it is away" in recorded.problem
    assert [one.engine for one in recorded.exclusions] == ["mine", "other"]


def test_the_document_has_the_figures_that_the_table_has() -> None:
    measured = (FULL, EDGE)
    advice = Advice(suite(), THRESHOLD, 0.36, "2 cores", measured, (), recommend(measured, THRESHOLD, 0.36))
    document = json.loads(json.dumps(advice.to_document()))
    assert (document["cheapest"], document["next"]) == ("f", None)
    assert [(one["correct"], one["meetsThreshold"], one["lostStrata"]) for one in document["engines"]] == [
        (100, True, []),
        (60, False, ["amount"]),
    ]
    assert document["engines"][0]["costPerThousand"] == pytest.approx(0.02)
