"""Kubernetes quantities, as far as engines and nodes need them: memory in bytes, CPU in cores."""

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


def bytes_of(quantity: str) -> int:
    """`1500Mi` -> bytes; ValueError names what cannot be read."""
    digits = quantity.rstrip("kKMGTi")
    suffix = quantity[len(digits) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a memory quantity such as 1500Mi")
    return int(float(digits) * _SUFFIXES[suffix])


def cores_of(quantity: str) -> float:
    """`1500m` -> 1.5."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def millicores_of(quantity: str) -> int:
    """`1.5` -> 1500; what is below a thousandth is not CPU to Kubernetes."""
    return round(cores_of(quantity) * 1000)


def canonical_cores(quantity: str) -> str:
    """`2000m` -> `2`, `0.5` -> `500m`: as the API server returns it, so that no pass sees a drift."""
    milli = millicores_of(quantity)
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def canonical_count(count: int) -> str:
    """`1500` -> `1500`, `2000` -> `2k`: likewise, of what is counted in a quota, cores among it."""
    unit = ""
    for larger in "kMGTPE":
        if count == 0 or count % 1000:
            break
        count, unit = count // 1000, larger
    return f"{count}{unit}"


def mebibytes(count: int) -> str:
    """Bytes rounded up to whole MiB, in the largest unit that divides them: the API server returns it unchanged.

    More than it can count is as much as it can.
    """
    size, unit = min(-(-count // 2**20), 2**43 - 1), "Mi"
    for larger in ("Gi", "Ti", "Pi", "Ei"):
        if size == 0 or size % 1024:
            break
        size, unit = size // 1024, larger
    return f"{size}{unit}"
