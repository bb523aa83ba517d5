"""Logins to registries: as docker, podman and helm keep them, with their helpers."""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_cli.errors import CliError

_HELPER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Login:
    """A user of a registry. The password is not part of its repr."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.username!r})"


def find_login(host: str, environ: Mapping[str, str] | None = None) -> Login | None:
    """Return the login of a registry from the files of docker, podman and helm, or None. Raise CliError."""
    for path in list_login_files(os.environ if environ is None else environ):
        if path.is_file() and (login := _read_login(path, host)) is not None:
            return login
    return None


def list_login_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the files that may have a login, the first to read first."""
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    named = [Path(environ["REGISTRY_AUTH_FILE"])] if environ.get("REGISTRY_AUTH_FILE") else []
    runtime = [Path(environ["XDG_RUNTIME_DIR"], "containers/auth.json")] if environ.get("XDG_RUNTIME_DIR") else []
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    return [*named, docker, *runtime, config / "containers/auth.json", config / "helm/registry/config.json"]


def _read_login(path: Path, host: str) -> Login | None:
    try:
        document: Any = json.loads(path.read_bytes())
        helper = document.get("credHelpers", {}).get(host) or document.get("credsStore")
        entry = document.get("auths", {}).get(host) or document.get("auths", {}).get(f"https://{host}") or {}
        if encoded := entry.get("auth"):
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            return Login(username, password)
    except (OSError, ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise CliError(
            f"{path}: cannot be read as logins: {type(error).__name__}; log in again, or remove the file"
        ) from error
    return _ask_helper(helper, host) if isinstance(helper, str) and helper else None


def _ask_helper(helper: str, host: str) -> Login | None:
    """Ask docker-credential-HELPER. A helper that has no login of this registry exits with an error."""
    if not helper.replace("-", "").replace("_", "").isalnum():
        raise CliError(f"credential helper {helper!r:.40}: not a name of a helper; mend the file of your logins")
    command = [f"docker-credential-{helper}", "get"]
    try:
        result = subprocess.run(
            command, input=host, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
        )
        found = json.loads(result.stdout) if result.returncode == 0 else {}
    except FileNotFoundError as error:
        raise CliError(f"{command[0]} is not on the PATH, and your logins are there; or use --username") from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise CliError(f"{command[0]} gave no answer that can be read; or use --username") from error
    if not found.get("Secret"):
        return None
    return Login(found.get("Username", ""), found["Secret"])
