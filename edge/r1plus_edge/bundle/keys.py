"""The public keys of who may make bundles for this user. Standard library only, as all that the installer runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from r1plus_contract.atomic_files import replace_text
from r1plus_contract.suites.suite_files import PUBLIC_KEY_BYTES, decode_base64
from r1plus_edge.base_folders import find_config_home
from r1plus_edge.errors import EdgeError


def find_keys_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file: one key a line, 32 bytes in base64; `#` begins a comment."""
    return find_config_home(environ) / "r1plus" / "bundle-keys"


def load_keys(file: Path) -> tuple[str, ...]:
    """Return the keys of a file; none where there is no file.

    Raises:
        EdgeError: it cannot be read, or a line is no key.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeError(f"{file}: cannot be read ({error}); make it anew with one public key a line") from error
    keys = {number: key for number, line in enumerate(lines, 1) if (key := line.partition("#")[0].strip())}
    for number, key in keys.items():
        if decode_base64(key, PUBLIC_KEY_BYTES) is None:
            raise EdgeError(
                f"{file}: line {number}: {key!r:.100} is not {PUBLIC_KEY_BYTES} bytes in base64; remove the line"
            )
    return tuple(keys.values())


def add_key(file: Path, key: str) -> None:
    """Trust a key from now on.

    Raises:
        EdgeError: the file cannot be read or written.
    """
    keys = load_keys(file)
    if key in keys:
        return
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        earlier = file.read_text(encoding="utf-8") if keys else "# Who may make bundles for this machine\n"
        replace_text(file, f"{earlier.rstrip()}\n{key}\n", mode=0o600)
    except OSError as error:
        raise EdgeError(
            f"{file}: cannot be written: {error.strerror}; name another folder in XDG_CONFIG_HOME"
        ) from error
