"""Where the API server is and how to prove who we are: from a kubeconfig or from inside a pod.

Called by the client's constructors. Exec plugins and password logins are refused by name: a controller runs with a
service account, a developer's machine with a certificate or a token.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_UNSUPPORTED_LOGINS = ("exec", "auth-provider", "username")


class ConnectionConfigError(Exception):
    """The kubeconfig or the pod's environment does not say how to reach the API server."""


@dataclass(frozen=True, slots=True)
class ApiConnection:
    """All the client needs to open a connection. `token` is called before every request, since tokens rotate."""

    server: str
    tls: ssl.SSLContext | None = None
    token: Callable[[], str | None] = lambda: None
    server_name: str | None = None
    namespace: str = "default"


class FileToken:
    """A bearer token in a file that the kubelet replaces about every hour; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        file_stat = self._path.stat()
        stamp = (file_stat.st_mtime_ns, file_stat.st_ino)
        if stamp != self._stamp:
            self._token = self._path.read_text().strip()
            self._stamp = stamp
        return self._token


class FileTrust(ssl.SSLContext):
    """Trusts the CAs of a file that the kubelet replaces when they rotate: a new connection trusts what it holds then.

    Of a client's context asyncio, uvloop and aiohttp call `wrap_bio` alone, once per connection.
    """

    def __new__(cls, _path: Path) -> "FileTrust":
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, path: Path) -> None:
        """Read the file; raise OSError (ssl's errors are a kind of it) if it holds no certificate."""
        self._path = path
        self._pem = path.read_text()
        self._current = ssl.create_default_context(cadata=self._pem)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection."""
        if (pem := self._path.read_text()) != self._pem:
            self._current, self._pem = ssl.create_default_context(cadata=pem), pem
        return self._current.wrap_bio(*args, **kwargs)


def autodetect(environ: Mapping[str, str]) -> ApiConnection:
    """Return KUBECONFIG's connection if set, else the pod's, else ~/.kube/config's: controller-runtime's order."""
    if environ.get("KUBECONFIG"):
        return from_kubeconfig(None, environ)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(environ)
    return from_kubeconfig(None, environ)


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> ApiConnection:
    """Return the connection of the service account that the kubelet mounted into this pod."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConnectionConfigError("KUBERNETES_SERVICE_HOST: absent; this is not a pod, so give a kubeconfig")
    if not (folder / "token").exists():
        raise ConnectionConfigError(f"{folder / 'token'}: absent; the pod needs automountServiceAccountToken: true")
    return ApiConnection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=FileTrust(folder / "ca.crt"),
        token=FileToken(folder / "token"),
        namespace=(folder / "namespace").read_text().strip() if (folder / "namespace").exists() else "default",
    )


def from_kubeconfig(path: Path | None, environ: Mapping[str, str] = os.environ) -> ApiConnection:
    """Return the current context of `path`, else of KUBECONFIG's first existing file, else of ~/.kube/config."""
    path = path or _find_default_path(environ)
    config = _read_kubeconfig(path)
    context = _find_entry(config, "contexts", "context", config.get("current-context"), path)
    cluster = _find_entry(config, "clusters", "cluster", context.get("cluster"), path)
    user = _find_entry(config, "users", "user", context.get("user"), path) if context.get("user") else {}
    for method in _UNSUPPORTED_LOGINS:
        if method in user:
            raise ConnectionConfigError(
                f"{path}: user {context['user']!r} logs in by {method}; give a certificate or a token"
            )
    server = str(cluster.get("server", "")).rstrip("/")
    try:
        tls = _build_tls_context(cluster, user, path.parent) if server.startswith("https:") else None
    except (OSError, ValueError) as error:  # ssl's and base64's errors are among them
        where = f"cluster {context.get('cluster')!r}, user {context.get('user')!r}"
        raise ConnectionConfigError(f"{path}: {where}: a certificate or key cannot be used: {error}") from error
    return ApiConnection(
        server=server,
        tls=tls,
        token=_find_token(user, path.parent),
        server_name=cluster.get("tls-server-name"),
        namespace=context.get("namespace") or "default",
    )


def _read_kubeconfig(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConnectionConfigError(f"{path}: cannot be read as a kubeconfig: {error}") from error
    if not isinstance(config, dict):
        raise ConnectionConfigError(f"{path}: is no kubeconfig: a mapping is expected, {type(config).__name__} found")
    return config


def _find_default_path(environ: Mapping[str, str]) -> Path:
    candidates = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if candidates:
        return next((path for path in candidates if path.exists()), candidates[0])
    return Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config"


def _find_entry(config: Mapping[str, Any], plural: str, singular: str, name: object, path: Path) -> dict[str, Any]:
    for entry in config.get(plural) or ():
        if entry.get("name") == name:
            return dict(entry.get(singular) or {})
    raise ConnectionConfigError(f"{path}: {plural}: no entry named {name!r}; set current-context to one that exists")


def _find_token(user: Mapping[str, Any], folder: Path) -> Callable[[], str | None]:
    if "tokenFile" in user:
        return FileToken(folder / user["tokenFile"])
    token = user.get("token")
    return lambda: token


def _build_tls_context(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    ca = _read_material(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _read_material(user, "client-certificate", folder), _read_material(user, "client-key", folder)
    if certificate and key:
        _load_client_certificate(context, certificate, key)
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load certificate and key through a private file (0600), since `ssl` takes them from files only."""
    with tempfile.NamedTemporaryFile(prefix="kube-client-") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


def _read_material(entry: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    """Return the PEM bytes that are inline (base64, `<name>-data`) or in a file relative to the kubeconfig."""
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data)
    return (folder / entry[name]).read_bytes() if entry.get(name) else None
