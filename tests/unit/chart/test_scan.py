"""What `make scan` leaves out has a reason."""

import re

import yaml

import scan
from support.chart import ROOT

CONFIG = ROOT / ".checkov.yaml"


def test_every_check_that_is_left_out_has_a_reason() -> None:
    text = CONFIG.read_text()
    skipped = yaml.safe_load(text)["skip-check"]
    reasons = dict(re.findall(r"^  - (CKV\w+)  # (.{30,})$", text, re.MULTILINE))
    assert set(reasons) == set(skipped)
    assert len(set(skipped)) == len(skipped)


def test_nothing_but_single_checks_is_left_out() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert set(config) == {"framework", "compact", "skip-download", "skip-check"}
    assert config["framework"] == ["kubernetes"]
    assert not [name for name in config["skip-check"] if "*" in name or not name.startswith("CKV")]


def test_what_failed_is_told_by_name_and_what_passed_is_counted_by_file() -> None:
    one = {"check_id": "CKV_K8S_1", "resource": "Pod.a.b", "check_name": "Not that", "file_path": "/chart.yaml"}
    report = [{"results": {"failed_checks": [one], "passed_checks": [one, one]}}]
    assert list(scan.findings(report)) == ["CKV_K8S_1 Pod.a.b: Not that"]
    assert scan.passed(report) == {"chart": 2}
