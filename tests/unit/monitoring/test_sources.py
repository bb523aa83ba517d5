"""What is read from mounted files, and what is said of files that cannot be used."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.verdict import Gate
from r1plus_monitoring.scoring.sources import SourceProblem, check_identity, read_sources, take_fingerprint
from support.monitoring.scripted import IDENTITY, Pod, small_suite

pytestmark = pytest.mark.usefixtures("mounted")


def test_a_whole_mount(pod: Pod) -> None:
    found = read_sources(pod.accuracy)
    assert found.problem is None
    assert found.settings is not None
    assert found.suite is not None
    assert (found.settings.gate, len(found.suite.items), found.verdicts.reports) == (Gate.ENFORCE, 50, ())


def test_no_verdicts_file_means_none_are_known(pod: Pod) -> None:
    (pod.accuracy / "verdicts.json").unlink()
    assert read_sources(pod.accuracy).problem is None


def rewrite(name: str, old: str, new: str) -> Callable[[Pod], None]:
    def change(pod: Pod) -> None:
        path = pod.accuracy / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def delete(name: str) -> Callable[[Pod], None]:
    return lambda pod: (pod.accuracy / name).unlink()


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        pytest.param(delete("settings.json"), "SettingsMissing", "settings.json: cannot be read", id="no settings"),
        pytest.param(rewrite("settings.json", "{", "["), "SettingsInvalid", "not JSON", id="settings are not JSON"),
        pytest.param(rewrite("settings.json", '"threshold":0.96', '"threshold":1.5'), "SettingsInvalid",
                     "threshold: 1.5 must be above 0 and at most 1", id="a threshold above 1"),
        pytest.param(rewrite("settings.json", '"probesPerMinute":600000', '"probesPerMinute":0'), "SettingsInvalid",
                     "probesPerMinute: 0 must be 1 or more", id="no probes at all"),
        pytest.param(rewrite("settings.json", "Enforce", "Never"), "SettingsInvalid", "gate", id="an unknown gate"),
        pytest.param(delete("suite.json"), "SuiteMissing", "suite.json", id="no suite header"),
        pytest.param(delete("items.jsonl"), "SuiteMissing", "items.jsonl", id="no items"),
        pytest.param(rewrite("items.jsonl", '"yes"', '"yep"'), "SuiteHashMismatch", "suite.json promises",
                     id="a changed answer"),
        pytest.param(rewrite("settings.json", '"suiteHash":"', '"suiteHash":"0'), "SuiteHashMismatch",
                     "the deployment requires 0", id="another suite than the operator resolved"),
        pytest.param(rewrite("suite.json", '"items":50,', ""), "SuiteInvalid", "items: missing", id="a header field"),
        pytest.param(rewrite("verdicts.json", "[]", "7"), "VerdictsInvalid", "KnownVerdicts.reports",
                     id="odd verdicts"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(pod: Pod, change: Callable[[Pod], None], reason: str, words: str) -> None:
    change(pod)
    found = read_sources(pod.accuracy)
    assert found.problem is not None
    assert found.problem.reason == reason
    assert words in found.problem.message
    assert found.suite is None


def test_bytes_that_are_no_text(pod: Pod) -> None:
    (pod.accuracy / "items.jsonl").write_bytes(b"\xff\xfe")
    assert read_sources(pod.accuracy).problem == SourceProblem(
        "SuiteInvalid", "suite small-v1: not UTF-8: invalid start byte"
    )


def test_the_fingerprint_follows_a_config_map(tmp_path: Path) -> None:
    """A kubelet writes a new folder and swaps the `..data` link to it in one step."""
    header, items = small_suite()
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "suite.json").write_text(header)
        (tmp_path / version / "items.jsonl").write_text(items)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "suite.json").symlink_to("..data/suite.json")
    before = take_fingerprint(tmp_path)
    assert take_fingerprint(tmp_path) == before
    (tmp_path / "..tmp").symlink_to("two")
    os.replace(tmp_path / "..tmp", tmp_path / "..data")  # noqa: PTH105 - as the kubelet does it
    assert take_fingerprint(tmp_path) != before


def test_the_identity_that_the_pod_was_made_for(pod: Pod) -> None:
    assert check_identity(pod.root / "revision", IDENTITY.digest()) == IDENTITY


@pytest.mark.parametrize(
    ("text", "promised", "reason"),
    [
        pytest.param(None, "d", "IdentityMissing", id="no file"),
        pytest.param("{}", "d", "IdentityInvalid", id="no identity in it"),
        pytest.param(None, "0" * 64, "IdentityMissing", id="no file, whatever is promised"),
        pytest.param("same", "0" * 64, "IdentityMismatch", id="of another revision"),
    ],
)
def test_an_identity_that_is_not_ours(pod: Pod, text: str | None, promised: str, reason: str) -> None:
    path = pod.root / "revision" / "identity.json"
    if text is None:
        path.unlink()
    elif text != "same":
        path.write_text(text)
    found = check_identity(path.parent, promised)
    assert not isinstance(found, ServingIdentity)
    assert found.reason == reason
