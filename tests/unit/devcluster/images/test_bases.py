"""The base of an image: by tag for development, by digest only for a release."""

import re
import subprocess

import pytest

from devcluster.images.product import PRODUCTS
from devcluster.images.sources import ROOT
from support.tables import for_each

DIGEST = "a" * 64
BASES = {
    "a development build on a tag": ("", "python:3.11-slim", 0),
    "a development build on a digest": ("", f"python:3.11-slim@sha256:{DIGEST}", 0),
    "a release on a tag": ("1", "python:3.11-slim", 1),
    "a release on the default": ("1", "", 1),
    "a release on a digest": ("1", f"python:3.11-slim@sha256:{DIGEST}", 0),
    "a release on a registry's digest": ("1", f"registry.example.com:5000/python@sha256:{DIGEST}", 0),
}


@for_each("release, base, status", BASES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_release_is_built_on_a_digest_only(name: str, release: str, base: str, status: int) -> None:
    text = (ROOT / PRODUCTS[name].containerfile).read_text()
    _, _, stage = text.partition("FROM ${BASE}\n")
    (guard,) = re.findall(r"^RUN (.*RELEASE.*)$", stage, re.MULTILINE)
    (default,) = re.findall(r"^ARG BASE=(.*)$", text, re.MULTILINE)
    before, _, _ = stage.partition("RUN ")
    assert "ARG BASE\n" in before and "ARG RELEASE=\n" in before  # Their values are known where the guard runs.
    ended = subprocess.run(
        ["sh", "-c", guard], env={"BASE": base or default, "RELEASE": release}, capture_output=True, text=True
    )
    assert (ended.returncode, "name it as IMAGE@sha256:" in ended.stderr) == (status, status == 1)
