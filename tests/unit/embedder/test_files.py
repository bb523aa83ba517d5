"""What an embedder reads before it serves: the engine's files, and which texts are computed together."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.engine.delivery import digest_folder
from r1plus_embedder.batches import MOST_BATCH_TOKENS, group_by_length
from r1plus_embedder.files import EngineFilesError, read_engine_files
from support.tables import for_each


def write_engine(folder: Path, **facts: object) -> Path:
    """Write files that look like an engine's."""
    folder.mkdir()
    (folder / "openvino_model.xml").write_text("<net/>")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "engine.json").write_text(json.dumps({"embedding": {"dimensions": 384, "mostTokens": 256}, **facts}))
    return folder


def test_an_engine_is_its_name_and_the_digest_of_its_files(tmp_path: Path) -> None:
    folder = write_engine(tmp_path / "engine")
    digest = digest_folder(folder)
    files = read_engine_files(folder, "minilm", digest)
    assert (files.identity, files.dimensions, files.most_tokens) == (f"minilm@sha256:{digest}", 384, 256)


@for_each(
    "change, words",
    {
        "no folder": (lambda folder: folder.rename(folder.with_name("elsewhere")), "mount the engine's files"),
        "no facts": (lambda folder: (folder / "engine.json").unlink(), "engine.json: No such file"),
        "no model": (lambda folder: (folder / "openvino_model.xml").unlink(), "openvino_model.xml missing"),
        "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json missing"),
        "facts that are no JSON": (lambda folder: (folder / "engine.json").write_text("{"), "--kind embedding"),
        "facts that are a list": (lambda folder: (folder / "engine.json").write_text("[]"), "no embedding engine"),
        "facts of another engine": (
            lambda folder: (folder / "engine.json").write_text('{"architecture": {}}'),
            "no embedding engine",
        ),
        "no dimensions": (
            lambda folder: (folder / "engine.json").write_text('{"embedding": {"mostTokens": 9}}'),
            "embedding.dimensions: None is not between 1 and 4096",
        ),
        "endless texts": (
            lambda folder: (folder / "engine.json").write_text('{"embedding": {"dimensions": 1, "mostTokens": 9000}}'),
            "mostTokens: 9000 is not between 1 and 8192",
        ),
        "facts without an end": (lambda folder: (folder / "engine.json").write_text(" " * 70_000), "more than 65536"),
        "a link": (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "plain files only"),
        "other files": (lambda folder: (folder / "more").write_text("x"), "expected"),
    },
)
def test_a_folder_that_is_no_engine_is_refused_with_a_remedy(
    tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    folder = write_engine(tmp_path / "engine")
    digest = digest_folder(folder)
    change(folder)
    with pytest.raises(EngineFilesError, match=words):
        read_engine_files(folder, "minilm", digest)


@given(st.lists(st.integers(1, 256), max_size=64))
def test_groups_hold_each_text_once_and_no_more_than_their_tokens(lengths: list[int]) -> None:
    groups = group_by_length(lengths)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or max(lengths[one] for one in group) * len(group) <= MOST_BATCH_TOKENS


def test_texts_of_like_length_are_computed_together() -> None:
    assert group_by_length([3, 200, 4, 190], most_tokens=400) == [[0, 2], [3, 1]]
