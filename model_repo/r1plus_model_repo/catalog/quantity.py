"""Kubernetes quantities of engines and nodes: memory in bytes, CPU in cores."""

from typing import Final

_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
MOST_BYTES: Final = 2**60
"""Of memory or storage, more than any machine has. From 2**63 on a revision could not be read again."""


def bytes_of(quantity: str) -> int:
    """Convert `1500Mi` to bytes. Raise ValueError for another form."""
    digits = quantity.rstrip("kKMGTi")
    suffix = quantity[len(digits) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a memory quantity such as 1500Mi")
    return int(float(digits) * _SUFFIXES[suffix])


def cores_of(quantity: str) -> float:
    """Convert `1500m` to 1.5."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def millicores_of(quantity: str) -> int:
    """Convert `1.5` to 1500. Kubernetes ignores less than a thousandth."""
    return round(cores_of(quantity) * 1000)


def canonical_cores(quantity: str) -> str:
    """Convert `2000m` to `2`, `0.5` to `500m`: the form that the API server returns, so that no pass sees drift."""
    milli = millicores_of(quantity)
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def canonical_count(count: int) -> str:
    """Convert 1500 to `1500`, 2000 to `2k`: the form that the API server returns for counts and cores in a quota."""
    unit = ""
    for larger in "kMGTPE":
        if count == 0 or count % 1000:
            break
        count, unit = count // 1000, larger
    return f"{count}{unit}"


def mebibytes(count: int) -> str:
    """Round bytes up to whole MiB, in the largest unit that divides them: the form that the API server returns.

    The result is limited to the largest quantity that the API server supports.
    """
    size, unit = min(-(-count // 2**20), 2**43 - 1), "Mi"
    for larger in ("Gi", "Ti", "Pi", "Ei"):
        if size == 0 or size % 1024:
            break
        size, unit = size // 1024, larger
    return f"{size}{unit}"
