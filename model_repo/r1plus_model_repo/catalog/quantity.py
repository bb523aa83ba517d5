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


def mebibytes(count: int) -> str:
    """Bytes rounded up to a canonical `Mi` quantity, which the API server returns unchanged."""
    mib = -(-count // 2**20)
    return f"{mib // 1024}Gi" if mib % 1024 == 0 else f"{mib}Mi"
