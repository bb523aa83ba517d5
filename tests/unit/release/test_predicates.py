"""What is signed about an artifact depends on the commit and its content alone."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from r1plus_cli.bundle.oci import Descriptor
from release import predicates
from release.images import ReleaseImage
from release.predicates import Source, describe_build, list_packages, read_source

SOURCE = Source("a" * 40, "2026-12-07T10:00:00Z")
IMAGE = ReleaseImage(
    "r1plus-operator", Path("operator.tar"), Descriptor(media_type="x", digest=f"sha256:{1:064x}", size=1)
)
SCANNED: dict[str, Any] = {
    "documentNamespace": "https://anchore.com/syft/image/8418e84a-ad99-4f7f-a2db-1f550a7edcd8",
    "creationInfo": {"licenseListVersion": "3.29", "creators": ["Tool: syft-[not provided]"], "created": "2026-12-07T11:53:27Z"},
    "packages": [{"SPDXID": "SPDXRef-Package-kopf", "name": "kopf"}],
    "files": [{"SPDXID": "SPDXRef-File-a"}],
    "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": "SPDXRef-Package-kopf", "relationshipType": "DESCRIBES"},
        {"spdxElementId": "SPDXRef-Package-kopf", "relatedSpdxElement": "SPDXRef-File-a", "relationshipType": "CONTAINS"},
    ],
}  # fmt: skip


def test_the_list_of_packages_has_no_random_name_no_time_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicates, "output", lambda *_, **__: json.dumps(SCANNED))
    document = list_packages(IMAGE, "0.1.0", SOURCE)
    assert document["packages"] == SCANNED["packages"]
    assert document["documentNamespace"] == f"https://r1plus.ai/spdx/r1plus-operator/{IMAGE.descriptor.digest}"
    assert document["creationInfo"]["created"] == SOURCE.date
    assert [one["relationshipType"] for one in document["relationships"]] == ["DESCRIBES"]
    assert "files" not in document


def test_the_provenance_names_commit_and_version() -> None:
    definition = describe_build("0.1.0", SOURCE)["buildDefinition"]
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": SOURCE.commit}
    assert definition["externalParameters"]["version"] == "0.1.0"


def test_a_commit_bears_its_date_in_utc_and_changes_are_noticed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        given = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        env = {"GIT_COMMITTER_DATE": "2026-12-07T01:00:00+02:00", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        subprocess.run(["git", "-C", tmp_path, *given, *words], check=True, capture_output=True, env=env)

    git("init")
    git("commit", "--allow-empty", "-m", "x")
    assert read_source(tmp_path).date == "2026-12-06T23:00:00Z"
    assert not read_source(tmp_path).is_dirty
    (tmp_path / "new").touch()
    assert read_source(tmp_path).is_dirty
