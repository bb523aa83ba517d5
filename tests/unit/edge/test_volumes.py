"""Folders of ConfigMaps: all files change in one step, as the kubelet changes them."""

import itertools
import threading
from pathlib import Path

import pytest

from r1plus_edge.pods.volumes import read_config, write_config


def test_a_folder_gets_exactly_the_files_of_its_config(tmp_path: Path) -> None:
    folder = tmp_path / "accuracy"
    assert write_config(folder, {"settings.json": "1", "suite.json": "2"})
    assert read_config(folder) == {"settings.json": "1", "suite.json": "2"}
    assert write_config(folder, {"settings.json": "3"})
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("..")) == ["settings.json"]
    assert (folder / "settings.json").read_text() == "3"
    assert len(list(folder.glob("..*"))) == 2, "one version, and its link"


def test_the_same_files_again_change_nothing(tmp_path: Path) -> None:
    write_config(tmp_path, {"a": "1"})
    before = (tmp_path / "..data").readlink()
    assert not write_config(tmp_path, {"a": "1"})
    assert (tmp_path / "..data").readlink() == before


@pytest.mark.unit_slow
def test_a_reader_never_sees_files_of_two_versions(tmp_path: Path) -> None:
    write_config(tmp_path, {"a": "0", "b": "0"})
    has_ended, versions, mixed = threading.Event(), set[str](), []

    def read() -> None:
        while not has_ended.is_set():
            version = tmp_path / (tmp_path / "..data").readlink()
            try:
                pair = (version / "a").read_text(), (version / "b").read_text()
            except FileNotFoundError:
                continue  # That version is gone: the reader follows the link again.
            versions.add(pair[0])
            if pair[0] != pair[1]:
                mixed.append(pair)

    reader = threading.Thread(target=read)
    reader.start()
    numbers = itertools.count()
    while (number := next(numbers)) < 300 or len(versions) < 10:
        write_config(tmp_path, {"a": str(number), "b": str(number)})
    has_ended.set()
    reader.join()
    assert mixed == []


def test_what_a_killed_writer_left_does_not_hinder_the_next(tmp_path: Path) -> None:
    write_config(tmp_path, {"a": "1"})
    (tmp_path / "..data_tmp").symlink_to("..gone")
    (tmp_path / "..half").mkdir()
    assert write_config(tmp_path, {"a": "2"})
    assert (tmp_path / "a").read_text() == "2"
