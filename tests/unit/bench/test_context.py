"""`make bench NAME=context` without an engine: which lengths it refuses, and what its picture is drawn from."""

from pathlib import Path
from typing import Any, Final

import pytest

from bench.context.__main__ import METHODS, build_parser, explain_refusal, format_row, list_orders
from bench.context.one import Row, cut, is_right
from bench.context.picture import draw, join
from r1plus_contract.jsonable import dumps, loads
from r1plus_model_repo.importing.shipped import list_shipped
from r1plus_monitoring.curate.long_context import build_long_items

LITE = next(one.spec for one in list_shipped() if one.name == "qwen-lite-q8-0")
ROW = format_row(Row(2048, 1900, 5.0, 40.0, 1500.0, 24.0, 24.0, 5, 6, {"needle": "2/2"}), trained=True)


def test_a_length_that_the_model_was_not_trained_for_is_refused_with_that_length() -> None:
    assert explain_refusal(LITE, 32768) == ""
    words = "spec.context.maxTokens: 65536 exceeds 32768, the engine's context length"
    assert explain_refusal(LITE, 65536) == words


def test_an_order_says_the_same_in_the_process_that_measures() -> None:
    arguments = build_parser().parse_args(["--items", "3"])
    orders = dict(list_orders(arguments, LITE, Path("/engine"), 2048))
    assert list(orders) == ["dense", "sparse", "evicted"] == list(METHODS)
    assert [loads(type(order), dumps(order)) for order in orders.values()] == list(orders.values())
    assert (orders["dense"].sparse_threshold, orders["dense"].eviction) == (None, None)


def test_the_first_line_of_an_answer_counts() -> None:
    item = build_long_items(512, 1)[0]
    assert is_right(item, cut(f"\n{item.answers[0]}\nIt is 12."))
    assert not is_right(item, cut(f"12\n{item.answers[0]}"))


def test_the_picture_has_a_line_of_each_attention_and_no_accuracy_beyond_the_trained_length() -> None:
    beyond: dict[str, Any] = ROW | {"tokens": 65536, "prompt_tokens": 60000, "right": 0, "trained": False}
    machine = {"cpus": 2, "load": 0.1}
    report = {
        "engine": "qwen-lite-q8-0",
        "machine": {"before": machine, "after": machine},
        "rows": {
            "dense": [ROW, beyond],
            "sparse": [ROW | {"kinds": {"needle": "1/2"}}, ROW | {"kinds": {"hops": "0/1"}}],
        },
    }
    time, memory, share = draw(report).axes
    assert [line.get_label() for line in time.lines] == ["dense", "sparse"]
    assert list(time.lines[0].get_xdata()) == list(memory.lines[0].get_xdata()) == [1900, 60000]
    assert list(share.lines[0].get_ydata()) == [1.0]
    assert list(share.lines[1].get_ydata()) == [0.5]


RUNS: Final = (
    (32768, {"before": {"load": 1}, "after": {"load": 2}}),
    (2048, {"before": {"load": 3}, "after": {"load": 4}}),
)


def test_lengths_of_several_runs_make_one_picture_in_the_order_of_length() -> None:
    long, short = ({"engine": "e", "machine": m, "rows": {"dense": [ROW | {"tokens": n}]}} for n, m in RUNS)
    joined = join([long, short])
    assert [row["tokens"] for row in joined["rows"]["dense"]] == [2048, 32768]
    assert joined["machine"] == {"before": {"load": 1}, "after": {"load": 4}}
    with pytest.raises(ValueError, match="the files are of several engines, e, f"):
        join([long, short | {"engine": "f"}])
