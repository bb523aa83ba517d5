"""Images that a folder of tests alone has: what reaches the node, and what the chart names of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from devcluster import kubeconfig
from devcluster.images.recipe import Image


@dataclass(frozen=True, slots=True)
class OwnImages:
    """Images beyond the product's."""

    archives: tuple[Image, ...] = ()
    chart_images: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the chart's `images`."""


def require_embedded_cluster(why: str) -> None:
    """Skip the test where KUBECONFIG names another cluster."""
    if kubeconfig.of_ones_own():
        pytest.skip(f"{why}; unset KUBECONFIG")
