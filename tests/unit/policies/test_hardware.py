"""Which GPUs an engine is given, and what is said of those that it is not."""

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from r1plus_policies.engine.hardware import GpuNeed, Gpus, explain_version_refusal, merge_by_product, place_engine
from r1plus_policies.engine.memory_fit import MIB
from support.tables import for_each

L40S = Gpus("NVIDIA-L40S", 2, 46068, (8, 9))
H100 = Gpus("NVIDIA-H100-80GB-HBM3", 1, 81559, (9, 0))
T4 = Gpus("Tesla-T4", 4, 15360, (7, 5))
SLICE = Gpus("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", 2, 19968, (8, 0))
UNLABELLED = Gpus("NVIDIA-L4", 1)
STRANGE = Gpus("NVIDIA-B999", 1)


@for_each("need, offered, taken", {
    "the most memory": (GpuNeed(1), [L40S, H100, T4], H100),
    "two in one node": (GpuNeed(2), [L40S, H100], L40S),
    "what it was built for": (GpuNeed(1, ("NVIDIA-L40S",)), [L40S, H100], L40S),
    "exactly the capability": (GpuNeed(1, (), (7, 5)), [T4], T4),
    "a MIG slice": (GpuNeed(1), [SLICE], SLICE),
    "a known product without further labels": (GpuNeed(1, (), (8, 9)), [UNLABELLED], UNLABELLED),
})  # fmt: skip
def test_gpus_taken(need: GpuNeed, offered: list[Gpus], taken: Gpus) -> None:
    assert place_engine(need, offered) == taken


@for_each("need, offered, said", {
    "no GPU at all": (GpuNeed(1), [], "no matching node offers a GPU"),
    "another product": (GpuNeed(1, ("NVIDIA-H100-PCIe",)), [L40S], "NVIDIA-L40S: it was built for NVIDIA-H100-PCIe"),
    "too old": (GpuNeed(1, (), (8, 0)), [T4], "compute capability 7.5 is below 8.0"),
    "unknown capability": (GpuNeed(1, (), (8, 0)), [STRANGE], "but that of this GPU is unknown"),
    "too few": (GpuNeed(3), [L40S], "it needs 3 in one node, which has 2"),
    "split over slices": (GpuNeed(2), [SLICE], "which is not possible over MIG slices"),
    "unknown memory": (GpuNeed(1), [STRANGE], "its memory is unknown: neither"),
})  # fmt: skip
def test_gpus_refused(need: GpuNeed, offered: list[Gpus], said: str) -> None:
    answer = place_engine(need, offered)
    assert isinstance(answer, str)
    assert said in answer


def test_usable_is_the_lesser_of_label_and_table() -> None:
    assert Gpus("NVIDIA-L40S", 1, 40000).usable_bytes == 38000 * MIB
    assert Gpus("NVIDIA-L40S", 1, 99999).usable_bytes == L40S.usable_bytes == 43764 * MIB
    assert Gpus("NVIDIA-B999", 1, 100_000).usable_bytes == 95_000 * MIB


@given(st.permutations([L40S, H100, T4, SLICE, STRANGE, UNLABELLED]), st.integers(1, 5))
def test_the_order_of_the_nodes_does_not_matter(offered: list[Gpus], count: int) -> None:
    need = GpuNeed(count)
    assert place_engine(need, offered) == place_engine(need, sorted(offered, key=lambda g: g.product))


@for_each("version, least, most, loads", {
    "the very version": ("1.2.1", "1.2.1", "1.2.1", True),
    "one newer": ("1.2.2", "1.2.1", "1.2.1", False),
    "one older": ("1.2.0", "1.2.1", None, False),
    "numbers, not letters": ("1.10", "1.9", None, True),
    "a patch of it": ("10.14.1", "10.14", "10.14", True),
    "any version will do, so an unknown one does": ("", None, None, True),
    "an unknown version will not do where one is asked for": ("", "1.0", None, False),
})  # fmt: skip
def test_runtime_versions(version: str, least: str | None, most: str | None, loads: bool) -> None:
    assert (explain_version_refusal(version, least, most) is None) == loads


LATE = Gpus("NVIDIA-H200", 8, 143771, None)


def test_of_one_product_the_least_memory_counts_and_a_label_that_is_late_on_one_node_is_known_from_another() -> None:
    less, more = Gpus("NVIDIA-L40S", 1, 43000, (8, 9)), Gpus("NVIDIA-L40S", 4, None, None)
    (one,) = merge_by_product([L40S, less, more])
    assert one == Gpus("NVIDIA-L40S", 4, 43000, (8, 9))
    (late,) = merge_by_product([LATE, replace(LATE, capability=(9, 0))])
    assert late.capability == (9, 0)


def test_a_node_that_has_none_for_now_does_not_count_unless_none_has_any() -> None:
    less = Gpus("NVIDIA-L40S", 0, 43000, (8, 9))
    assert merge_by_product([less, L40S]) == merge_by_product([L40S, less]) == [L40S]
    assert merge_by_product([less]) == [less]


def test_slices_that_are_a_resource_of_their_own_are_another_kind() -> None:
    assert len(merge_by_product([SLICE, replace(SLICE, resource="nvidia.com/mig-3g.20gb")])) == 2


NODES = st.lists(
    st.builds(
        Gpus,
        st.sampled_from(["NVIDIA-L40S", "NVIDIA-H200", "NVIDIA-B999"]),
        st.integers(0, 8),
        st.none() | st.integers(1, 99999),
        st.none() | st.sampled_from([(8, 0), (9, 0)]),
        st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-3g.20gb"]),
    ),
    max_size=6,
)


@given(NODES, st.randoms())
def test_the_order_of_the_nodes_changes_nothing(nodes: list[Gpus], rand: Random) -> None:
    mixed = rand.sample(nodes, len(nodes))
    for need in (GpuNeed(1), GpuNeed(2, (), (8, 0))):
        assert place_engine(need, nodes) == place_engine(need, mixed)
