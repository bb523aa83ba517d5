"""A serving pod's folders, for every test of the monitor."""

from pathlib import Path

import pytest

from support.monitoring.scripted import Pod


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """A pod to which nothing is mounted yet but its identity."""
    return Pod.make(tmp_path)


@pytest.fixture
def mounted(pod: Pod) -> Pod:
    """The same pod with the small suite and settings; modules ask for it by `usefixtures`."""
    pod.mount()
    return pod
