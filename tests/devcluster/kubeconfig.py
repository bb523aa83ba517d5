"""Writes kubeconfigs as JSON, which is YAML, with everything embedded: one file can be copied and used anywhere.

Also says whose kubeconfig the environment names: the embedded cluster's own counts as none.
"""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

from devcluster.layout import cluster_layout
from devcluster.pki import Authority, Certificate

VARIABLE = "KUBECONFIG"


def of_ones_own(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The kubeconfig of a cluster of the user's own that KUBECONFIG names; None where the embedded one is meant.

    The demo tells people to export the embedded cluster's kubeconfig to look around: that chooses no other cluster,
    by whatever path it is named, running or not.

    Raises:
        RuntimeError: it names several files, or one that is not there.
    """
    embedded = cluster_layout().kubeconfig("admin").resolve()
    named = [Path(part) for part in environment.get(VARIABLE, "").split(os.pathsep) if part]
    others = [path for path in named if path.resolve() != embedded]
    if not others:
        return None
    if len(others) > 1:
        raise RuntimeError(f"{VARIABLE} names {len(others)} files, {environment[VARIABLE]}: name the one to use")
    if not others[0].is_file():
        raise RuntimeError(
            f"{VARIABLE} names {others[0]}, which is not there: name a cluster of your own, or unset {VARIABLE} to use"
            " the embedded one"
        )
    return others[0]


def names_embedded(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether KUBECONFIG names the embedded cluster's own file, there or not."""
    embedded = cluster_layout().kubeconfig("admin").resolve()
    return any(Path(part).resolve() == embedded for part in environment.get(VARIABLE, "").split(os.pathsep) if part)


def render(server: str, authority: Authority, client: Certificate) -> str:
    """The text of a kubeconfig that reaches `server` as the holder of `client`."""
    cluster = {"server": server, "certificate-authority-data": _encoded(authority.certificate)}
    user = {"client-certificate-data": _encoded(client.certificate), "client-key-data": _encoded(client.key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "user"}}],
        "current-context": "devcluster",
    }
    return json.dumps(config, indent=1) + "\n"


def write(path: Path, server: str, authority: Authority, client: Certificate) -> Path:
    """Write a kubeconfig that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(render(server, authority, client))
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
