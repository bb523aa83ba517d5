"""The table of GPUs: every row is whole, and what a node's label says finds it."""

import pytest

from r1plus_policies.engine.accelerators import TABLE, Accelerator, find_accelerator, is_slice, list_gpus, usable_bytes
from r1plus_policies.engine.memory_fit import MIB
from support.tables import for_each


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_has_a_source_a_label_and_less_usable_than_reported(row: Accelerator) -> None:
    assert row.source
    assert row.products
    assert 0.94 * row.reported_mib < row.usable_bytes / MIB <= 0.95 * row.reported_mib
    assert (7, 5) <= row.capability <= (9, 0)


def test_no_two_rows_are_found_by_one_word() -> None:
    words = [word.lower() for row in TABLE for word in {row.name, *row.products}]
    assert len(words) == len(set(words))


@for_each("word, name", {
    "a name in any case": ("l40s", "L40S"),
    "a whole GPU's label": ("NVIDIA-H100-80GB-HBM3", "H100"),
    "a label without the maker's name": ("A100-SXM4-40GB", "A100-40"),
    "a slice's label": ("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", "A100-40-MIG-3g.20gb"),
})  # fmt: skip
def test_a_word_finds_its_row(word: str, name: str) -> None:
    found = find_accelerator(word)
    assert found.name == name
    assert found.is_slice == ("MIG" in name) == is_slice(word)


def test_an_unknown_word_finds_nothing() -> None:
    assert find_accelerator("GeForce-256") is None
    assert find_accelerator("") is None


def test_slices_of_one_gpu_never_hold_more_than_it() -> None:
    slices = [row for row in TABLE if row.is_slice]
    assert slices
    for row in slices:
        parent = find_accelerator(row.name.split("-MIG-")[0])
        assert row.reported_mib < parent.reported_mib
        assert row.capability == parent.capability


def test_whole_gpus_come_smallest_first() -> None:
    assert [(row.name, row.capability) for row in list_gpus()] == [
        ("T4", (7, 5)),
        ("A10", (8, 6)),
        ("L4", (8, 9)),
        ("A100-40", (8, 0)),
        ("L40S", (8, 9)),
        ("H100", (9, 0)),
        ("A100-80", (8, 0)),
    ]


def test_usable_memory_is_whole_mebibytes() -> None:
    assert usable_bytes(46068) == 43764 * MIB
