"""Writes kubeconfigs as JSON, which is YAML, with everything embedded: one file can be copied and used anywhere."""

import base64
import json
from pathlib import Path

from devcluster.pki import Authority, Certificate


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
