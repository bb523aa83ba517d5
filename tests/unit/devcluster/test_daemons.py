"""Recorded processes: found again by a later run, and never mistaken for somebody else's."""

import subprocess
from pathlib import Path

import pytest

from devcluster import daemons
from devcluster.daemons import Daemon
from devcluster.layout import Layout, loopback_layout
from support.waiting import wait_until

SLEEPER = Daemon("sleeper", ("sleep", "60"))
STUBBORN = Daemon("stubborn", ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return loopback_layout(tmp_path)


@pytest.mark.parametrize(
    ("daemon", "grace_s"),
    [
        pytest.param(SLEEPER, daemons.TERM_GRACE_S, id="one that ends when asked"),
        pytest.param(STUBBORN, 0.0, id="one that does not, which is killed"),
    ],
)
def test_a_daemon_is_alive_until_it_is_stopped(daemon: Daemon, grace_s: float, layout: Layout) -> None:
    daemons.start(daemon, layout)
    assert daemons.alive(daemon.name, layout)
    daemons.stop(daemon.name, layout, grace_s)
    assert not daemons.alive(daemon.name, layout)
    assert daemons.recorded_names(layout) == []


def test_a_pid_that_now_belongs_to_somebody_else_is_not_signalled(layout: Layout) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        layout.pids.mkdir(parents=True)
        (layout.pids / "gone").write_text(f"{other.pid} 1\n")
        assert not daemons.alive("gone", layout)
        daemons.stop("gone", layout)
        assert other.poll() is None
        other.kill()


def test_a_daemon_that_ends_while_starting_is_an_error_with_its_last_words(layout: Layout) -> None:
    daemons.start(Daemon("broken", ("sh", "-c", "echo no such flag; exit 2")), layout)
    wait_until(lambda: not daemons.alive("broken", layout), "it has ended")
    with pytest.raises(RuntimeError, match="no such flag"):
        daemons.wait_ready("broken", layout, lambda: False, 120.0)


def test_stopping_what_never_ran_is_fine(layout: Layout) -> None:
    daemons.stop("never", layout)
