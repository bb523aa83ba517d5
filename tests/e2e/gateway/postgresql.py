"""PostgreSQL in a namespace of its own, with a database and a role for each tenant that asks, as docs/gateway-access.md says."""

import secrets
from dataclasses import dataclass

from devcluster.images import builder, rootfs
from devcluster.images.recipe import Image, Recipe
from devcluster.steps import Steps
from e2e import objects
from e2e.kube import Json, Kube
from e2e.waiting import wait_for

NAMESPACE, NAME, PORT = "postgresql", "postgresql", 5432
HOST = f"{NAME}.{NAMESPACE}.svc"
_BIN = "/usr/lib/postgresql/15/bin"
_CONTAINERFILE = """\
ARG BASE
FROM ${BASE}
RUN echo 'server:x:1000:1000::/tmp:/bin/sh' >> /etc/passwd
USER 1000:1000
"""
_START = f"""
set -e
mkdir -p /data/db && chmod 700 /data/db
if [ ! -e /data/db/PG_VERSION ]; then
  {_BIN}/initdb -D /data/db -U admin --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync
  echo 'host all all all scram-sha-256' >> /data/db/pg_hba.conf
fi
exec {_BIN}/postgres -D /data/db -c listen_addresses='*' -c unix_socket_directories=/data \
  -c shared_buffers=16MB -c max_connections=60
"""


def build_image(steps: Steps) -> Image:
    """From the cache where it is there."""
    steps.expect(1)
    return builder.ensure(
        Recipe("postgresql", _CONTAINERFILE, (), lambda context, log: None, rootfs.postgresql()), steps
    )


@dataclass(frozen=True, slots=True)
class PostgreSql:
    """A server that runs."""

    kube: Kube
    image: str

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.kube.apply(objects.namespace(NAMESPACE, {}))
        pod = objects.ordinary_pod(NAME, NAMESPACE, self.image, command=("sh", "-c", _START), labels={"app": NAME})
        (container,) = pod["spec"]["containers"]
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        container["resources"] = {"requests": {"cpu": "5m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
        pod["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
        self.kube.apply(pod)
        self.kube.apply(_service())
        wait_for(self._answers, "PostgreSQL answers", self._logs, period_s=1.0)

    def create_database(self, name: str) -> str:
        """Create a database and a role of that name; return the URL with the role's password."""
        password = secrets.token_urlsafe(24)
        for statement in (
            f"CREATE ROLE {name} LOGIN PASSWORD '{password}'",
            f"CREATE DATABASE {name} OWNER {name}",
            f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC",
        ):
            self.run(statement)
        return f"postgresql://{name}:{password}@{HOST}/{name}"

    def run(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the administrator."""
        words = (f"{_BIN}/psql", "-h", "/data", "-U", "admin", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc")
        return self.kube.kubectl("exec", f"--namespace={NAMESPACE}", NAME, "--", *words, statement)

    def copy_database(self, source: str, name: str, owner: str) -> None:
        """Restore a dump of a database into a new one, in which everything is the owner's."""
        self.run(f"DROP DATABASE IF EXISTS {name}")
        self.run(f"CREATE DATABASE {name} OWNER {owner}")
        dump = f"{_BIN}/pg_dump -h /data -U admin --no-owner --no-privileges {source}"
        restore = f"{_BIN}/psql -h /data -U admin -d {name} -q -v ON_ERROR_STOP=1 -c 'SET ROLE {owner}' -f -"
        self.kube.kubectl("exec", f"--namespace={NAMESPACE}", NAME, "--", "sh", "-c", f"{dump} | {restore}")

    def stop(self) -> None:
        """Remove it with its data."""
        self.kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")

    def _answers(self) -> bool:
        try:
            return self.run("SELECT 1").strip() == "1"
        except RuntimeError:
            return False

    def _logs(self) -> str:
        return self.kube.kubectl("logs", f"--namespace={NAMESPACE}", NAME, "--tail=20")


def _service() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT, "targetPort": PORT}]},
    }
