"""A whole release for the tests of `r1plus bundle`."""

from pathlib import Path

import pytest

from support.cli.release_bundle import Bundle, write_release


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A whole release."""
    return write_release(tmp_path)
