"""GPUs and MIG slices as data: how much memory one really has, what it can compute, and the source of each figure.

Memory fit and engine selection read it. A row is what a GPU *reports* (NVML, which is also what gpu-feature-discovery
writes into the node label `nvidia.com/gpu.memory`), never what its name promises.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

USABLE_PERCENT = 95
"""Of the reported memory. CUDA itself gets 0.8 to 1.5 % less (A100 40339 of 40960 MiB, A100-80 81251 of 81920, L40S
45486 of 46068); the rest covers partly filled blocks and fragmentation."""
_MIB = 1024**2
_SMI = "nvidia-smi on each, github.com/modal-labs/modal-client/pull/2797"
_GFD = "node labels of gpu-feature-discovery: github.com/NVIDIA/gpu-operator/issues/981, 1g.5gb"
_H100_LGIP = "nvidia-smi mig -lgip, jbarrow.ai/field_notes/nvidia-mig"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU, or a MIG slice of one."""

    name: str
    reported_mib: int
    """Memory as NVML reports it, MiB."""
    capability: tuple[int, int]
    """CUDA compute capability, developer.nvidia.com/cuda-gpus."""
    products: tuple[str, ...]
    """Values of the node label `nvidia.com/gpu.product`."""
    source: str
    """Of `reported_mib`."""

    @property
    def usable_bytes(self) -> int:
        """What an engine may plan with, bytes."""
        return usable_bytes(self.reported_mib)

    @property
    def is_slice(self) -> bool:
        """A MIG slice, over several of which no model can be split."""
        return is_slice(self.name)


def usable_bytes(reported_mib: int) -> int:
    """Return the bytes that an engine may use on a device that reports this many MiB; whole MiB, rounded down."""
    return reported_mib * USABLE_PERCENT // 100 * _MIB


def is_slice(product: str) -> bool:
    """Return whether a product, as a node's label names it, is a MIG slice."""
    return "-MIG-" in product


def _build_slices(
    of: str, products: tuple[str, ...], capability: tuple[int, int], rows: dict[str, tuple[int, str]]
) -> list[Accelerator]:
    return [
        Accelerator(f"{of}-MIG-{profile}", mib, capability, tuple(f"{p}-MIG-{profile}" for p in products), source)
        for profile, (mib, source) in rows.items()
    ]


_A100_40 = ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB", "A100-SXM4-40GB", "A100-PCIE-40GB")
_A100_80 = ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe")
_H100 = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe")

TABLE: Final[tuple[Accelerator, ...]] = (
    Accelerator("T4", 15360, (7, 5), ("Tesla-T4", "NVIDIA-T4"), _SMI),
    Accelerator("A10", 23028, (8, 6), ("NVIDIA-A10", "NVIDIA-A10G"), _SMI),
    Accelerator("L4", 23034, (8, 9), ("NVIDIA-L4",), _SMI),
    Accelerator("A100-40", 40960, (8, 0), _A100_40, _SMI),
    Accelerator("L40S", 46068, (8, 9), ("NVIDIA-L40S",), _SMI),
    Accelerator("H100", 81559, (9, 0), _H100, _SMI),
    Accelerator("A100-80", 81920, (8, 0), _A100_80, _SMI),
    *_build_slices(
        "A100-40",
        _A100_40,
        (8, 0),
        {
            "1g.5gb": (4864, _GFD),
            "2g.10gb": (9984, "node labels of gpu-feature-discovery on an A100-PCIE-40GB"),
            "3g.20gb": (19968, "nvidia-smi, github.com/XuehaiPan/nvitop/pull/8"),
            "7g.40gb": (40192, "node labels, github.com/prem-research/prem-operator/issues/39"),
        },
    ),
    *_build_slices(
        "H100",
        _H100,
        (9, 0),
        {
            "1g.10gb": (9984, _H100_LGIP),
            "1g.20gb": (20096, _H100_LGIP),
            "2g.20gb": (20096, _H100_LGIP),
            "3g.40gb": (40448, _H100_LGIP),
            "4g.40gb": (40448, _H100_LGIP),
            "7g.80gb": (81152, _H100_LGIP),
        },
    ),
)  # fmt: skip


def _index_by_word(rows: Iterable[Accelerator]) -> dict[str, Accelerator]:
    return {word.lower(): row for row in rows for word in (row.name, *row.products)}


_WORDS = MappingProxyType(_index_by_word(TABLE))


def find_accelerator(word: str) -> Accelerator | None:
    """Find the row of this name (`L40S`, `A100-40-MIG-3g.20gb`) or product label, in any case; None where it is
    unknown."""
    return _WORDS.get(word.lower())


def list_gpus() -> tuple[Accelerator, ...]:
    """List the GPUs of the table without their slices, smallest first."""
    return tuple(sorted((row for row in TABLE if not row.is_slice), key=lambda row: (row.reported_mib, row.name)))
