"""Quantities as nodes and catalogs write them."""

import pytest

from r1plus_model_repo.catalog.quantity import bytes_of, canonical_cores, cores_of, mebibytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("1500", 1500), ("1k", 1000), ("24550572Ki", 24550572 * 1024), ("1.5Gi", 3 * 2**29), ("2G", 2 * 10**9), ("1Ti", 2**40)],
)  # fmt: skip
def test_memory(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["lots", "1Qi", "1iK", "", "Mi"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        bytes_of(text)


@pytest.mark.parametrize(("text", "cores"), [("2", 2.0), ("1500m", 1.5), ("0.5", 0.5)])
def test_cores(text: str, cores: float) -> None:
    assert cores_of(text) == cores


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0Mi"), (2**30, "1Gi"), (2**20, "1Mi"), (2**20 + 1, "2Mi"), (1536 * 2**20, "1536Mi"), (2**40, "1Ti"), (1536 * 2**30, "1536Gi")],
)  # fmt: skip
def test_mebibytes_round_up_to_what_the_server_returns_unchanged(count: int, text: str) -> None:
    assert mebibytes(count) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2", "2"),
        ("2000m", "2"),
        ("2.0", "2"),
        ("1.5", "1500m"),
        ("0.5", "500m"),
        ("0.100", "100m"),
        ("1500m", "1500m"),
    ],
)
def test_cores_are_written_as_the_server_returns_them(text: str, canonical: str) -> None:
    assert canonical_cores(text) == canonical
