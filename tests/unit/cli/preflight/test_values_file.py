"""The file of values: what it says, and whose changes it never overwrites."""

from pathlib import Path

import pytest
import yaml

from r1plus_cli.errors import UsageError
from r1plus_cli.preflight.outcome import ChartValue
from r1plus_cli.preflight.values_file import check_writable, format_values, write_values

VALUES = (
    ChartValue("podSecurity.runAsUser", None, "the cluster assigns users"),
    ChartValue("podSecurity.fsGroup", None, "the cluster assigns users"),
    ChartValue("networkPolicy.dns.pods", [{"namespace": "dns", "labels": {"a": "b"}}], "DNS is there"),
    ChartValue("networkPolicy.apiServerPorts", [443, 16443], "the API server's ports"),
    ChartValue("registry.enabled", False, "no StorageClass"),
)


def test_the_values_are_nested_each_below_its_reason() -> None:
    text = format_values(VALUES)
    assert yaml.safe_load(text) == {
        "podSecurity": {"runAsUser": None, "fsGroup": None},
        "networkPolicy": {
            "dns": {"pods": [{"namespace": "dns", "labels": {"a": "b"}}]},
            "apiServerPorts": [443, 16443],
        },
        "registry": {"enabled": False},
    }
    assert text.count("# The cluster assigns users.") == 1, "a reason that several share is said once"
    assert "    # DNS is there.\n    pods: [{namespace: dns, labels: {a: b}}]\n" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_cluster_that_needs_nothing_gets_an_empty_file_that_says_so() -> None:
    text = format_values(())
    assert yaml.safe_load(text) == {}
    assert "# This cluster needs nothing else.\n" in text


def test_its_own_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "my-values.yaml"
    check_writable(path)
    write_values(path, VALUES)
    check_writable(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("images: {}\n", "another program or a person made it", id="a file of a person's own"),
        pytest.param(
            format_values(VALUES).replace("16443", "8443"), "it was changed since", id="a file that a person changed"
        ),
        pytest.param(
            format_values(VALUES) + "workers: 3\n", "it was changed since", id="a file that a person added to"
        ),
    ],
)
def test_a_persons_work_is_not_overwritten(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "my-values.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=why):
        check_writable(path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_values(tmp_path / "none" / "my-values.yaml", VALUES)
