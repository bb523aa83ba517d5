"""What is signed about each artifact beside its digest: what it contains (SPDX) and what it was made of (SLSA)."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.cache import binary
from devcluster.parts import go_binary
from devcluster.shell import output
from release.images import ReleaseImage

BUILD_TYPE = "https://r1plus.ai/release/v1"


@dataclass(frozen=True, slots=True)
class Source:
    """The commit that a release is made of."""

    commit: str
    date: str
    """Of the commit, in UTC: the time that a release bears wherever and whenever it is made."""
    is_dirty: bool = False
    """Whether the tree has changes that the commit lacks."""


def read_source(root: Path) -> Source:
    """Return the commit of a clone."""
    git = ["git", "-C", str(root)]
    utc = os.environ | {"TZ": "UTC"}
    shown = output([*git, "show", "-s", "--format=%H %cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"], env=utc)
    commit, date = shown.split()
    return Source(commit, date, bool(output([*git, "status", "--porcelain"]).strip()))


def list_packages(image: ReleaseImage, version: str, source: Source) -> dict[str, Any]:
    """Return the packages in an image with their licences (SPDX 2.3), as syft finds them.

    The list has no random name and no time of its making. Files are left out: the image's digest names them.
    """
    named = ["--source-name", image.name, "--source-version", version]
    scan = [binary("syft"), "scan", f"oci-archive:{image.archive}", "--quiet", "--output", "spdx-json", *named]
    document = json.loads(output(scan, env=os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false"}))
    files = {file["SPDXID"] for file in document.pop("files", [])}
    document["relationships"] = [
        one for one in document["relationships"] if files.isdisjoint((one["spdxElementId"], one["relatedSpdxElement"]))
    ]
    document["documentNamespace"] = f"https://r1plus.ai/spdx/{image.name}/{image.descriptor.digest}"
    tool = f"Tool: syft-{go_binary('syft').version}"
    document["creationInfo"] |= {"created": source.date, "creators": ["Organization: r1plus", tool]}
    return dict(document)


def describe_build(version: str, source: Source) -> dict[str, Any]:
    """Return the provenance (SLSA 1.0) of an artifact of this release."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"target": "make release", "version": version},
            "internalParameters": {"dirty": source.is_dirty},
            "resolvedDependencies": [{"uri": "git+https://r1plus.ai/r1plus", "digest": {"gitCommit": source.commit}}],
        },
        "runDetails": {"builder": {"id": f"{BUILD_TYPE}#key"}},
    }
