"""The user's folders by the XDG base directory specification. Standard library only, as all that the installer runs."""

from collections.abc import Mapping
from pathlib import Path


def find_config_home(environ: Mapping[str, str]) -> Path:
    """Return where programs have their configuration."""
    return _find(environ, "XDG_CONFIG_HOME", ".config")


def find_cache_home(environ: Mapping[str, str]) -> Path:
    """Return where programs keep what can be made again."""
    return _find(environ, "XDG_CACHE_HOME", ".cache")


def find_data_home(environ: Mapping[str, str]) -> Path:
    """Return where programs keep their data."""
    return _find(environ, "XDG_DATA_HOME", ".local/share")


def _find(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """Return the folder of a variable, else one below the home; a relative path does not count."""
    base = Path(environ.get(variable, ""))
    return base if base.is_absolute() else Path(environ.get("HOME") or "/") / default
