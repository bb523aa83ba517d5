"""A customer's artifact server in the cluster: a pod that has one of the demo's engines and gives it over https."""

from pathlib import Path

from devcluster.pki import Certificate
from e2e.delivery.artifacts_server import PORT
from e2e.kube import Json, Kube
from e2e.waiting import wait_for

NAMESPACE = "artifacts"
NAME = "artifacts"
HOST = f"{NAME}.{NAMESPACE}.svc"


class Artifacts:
    """The server, once it runs."""

    def __init__(self, kube: Kube, sha256: str, unsigned_sha256: str) -> None:
        self._kube = kube
        self.sha256, self.unsigned_sha256 = sha256, unsigned_sha256

    def url(self, kind: str, name: str) -> str:
        """Where `name` is given in that way: whole, slow, half, tampered, unsigned, moved, absent."""
        return f"https://{HOST}:{PORT}/{kind}/{name}.tar"

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return self._kube.kubectl("logs", "-n", NAMESPACE, NAME, "-c", "server").count(f"GET {path}\n")


def serve(kube: Kube, engine_image: str, python_image: str, given: Certificate, signature: str) -> Artifacts:
    """Start it with the engine of that image and this signature of it."""
    script = (Path(__file__).parent / "artifacts_server.py").read_text()
    data = {
        "server.py": script,
        "key.pem": given.key.read_text(),
        "cert.pem": given.certificate.read_text(),
        "model.sig": signature,
    }
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    kube.kubectl("delete", "pod", "-n", NAMESPACE, NAME, "--ignore-not-found", "--grace-period=0", "--force")
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(), "data": data})
    kube.apply(_pod(engine_image, python_image))
    port = {"port": PORT, "targetPort": PORT}
    spec = {"selector": {"app": NAME}, "ports": [port]}
    kube.apply({"apiVersion": "v1", "kind": "Service", "metadata": _metadata(), "spec": spec})

    def sha256() -> list[str] | None:
        lines = kube.kubectl("logs", "-n", NAMESPACE, NAME, "-c", "server").splitlines()
        found = [line.split()[1] for line in lines if line.startswith("sha256 ")]
        return found if len(found) == 2 else None

    def is_running() -> bool:
        pod = kube.get("pods", NAMESPACE, NAME)
        return pod is not None and pod.get("status", {}).get("phase") == "Running"

    wait_for(is_running, "the artifact server runs")
    return Artifacts(kube, *wait_for(sha256, "the artifact server has packed its engine"))


def _metadata() -> Json:
    return {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}}


def _pod(engine_image: str, python_image: str) -> Json:
    data = [{"name": "data", "mountPath": "/data"}]
    copy = {
        "name": "engine",
        "image": engine_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["cp", "-R", "/engine", "/data/"],
        "volumeMounts": data,
    }
    server = {
        "name": "server",
        "image": python_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/etc/artifacts/server.py", "/etc/artifacts/cert.pem", "/etc/artifacts/key.pem"],
        "volumeMounts": [*data, {"name": "files", "mountPath": "/etc/artifacts"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(),
        "spec": {
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
            "initContainers": [copy],
            "containers": [server],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "files", "configMap": {"name": NAME}}],
        },
    }
