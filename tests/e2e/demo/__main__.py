"""`make demo`, or PYTHONPATH=tests python -m e2e.demo: from nothing to right answers, a wrong engine refused."""

import signal
import sys
from types import FrameType

from devcluster import kubeconfig, space
from devcluster.cluster import Cluster
from devcluster.shell import CommandError
from devcluster.steps import Steps
from e2e import chart, parts, story
from e2e.demo.data import use_data
from e2e.demo.scenes import ask_each, observe, recall, refuse, serve
from e2e.demo.telling import Stage, Teller
from e2e.kube import Kube
from e2e.target import EmbeddedTarget, GivenTarget, Target
from e2e.waiting import StoryError
from support.waiting import WaitError

FAILURES = (StoryError, WaitError, CommandError, RuntimeError, OSError)


def main() -> int:
    """Run the eight steps; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    teller = Teller()
    target: Target | None = None
    try:
        target = _prepare(teller)
        _play(target, teller)
    except FAILURES as error:
        teller.failure(error, target.diagnostics() if target is not None else None)
        return 1
    except KeyboardInterrupt:
        teller.line("Interrupted. The cluster, if it was up, goes on running: make demo goes on, make down ends it.")
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Whoever ends the demo otherwise than by Ctrl-C, too, gets the example put back to its ordinary rate."""
    raise KeyboardInterrupt


def _prepare(teller: Teller) -> Target:
    """Steps 1 to 3: everything that the story needs; with a cluster of one's own only the chart."""
    steps = Steps()
    if given := kubeconfig.of_ones_own():
        with teller.stage(Stage.BUILD):
            teller.line(f"KUBECONFIG names a cluster of your own, {given}: using it, building nothing")
            made = parts.given(parts.given_path())
        target: Target = GivenTarget(Kube(given))
    else:
        with teller.stage(Stage.BUILD):
            space.require()
            made = parts.build(steps)
        with teller.stage(Stage.START):
            target = _start(steps, made)
            teller.line("To look in from another shell, from this folder:")
            teller.line(f"  export KUBECONFIG={target.kube.kubeconfig}")
    with teller.stage(Stage.INSTALL):
        steps.expect(1)
        with steps.step("helm upgrade --install r1plus"):
            chart.install(target.kube, made)
    return target


def _start(steps: Steps, made: parts.Parts) -> EmbeddedTarget:
    cluster = Cluster.up(steps, list(made.own))
    steps.expect(1)
    with steps.step("images of r1plus into the cluster") as step:
        for number, image in enumerate(made.archives):
            step.progress(number / len(made.archives), image.ref)
            cluster.import_image(image)
    return EmbeddedTarget(cluster, Kube(cluster.kubeconfig))


def _play(target: Target, teller: Teller) -> None:
    """Steps 4 to 8."""
    names = [story.name_in(example) for example in (story.FULL, story.LITE, story.EDGE)]
    with teller.stage(Stage.SERVE):
        serve(target, names, teller)
    with teller.stage(Stage.ASK):
        key = ask_each(target, names, teller)
    with teller.stage(Stage.KEEP):
        use_data(target, names[0], key, teller)
    with teller.stage(Stage.REFUSE):
        refuse(target, names[0], key, teller)
        observe(target, names[0], key, teller)
        recall(target, names[0], teller)
    with teller.stage(Stage.LEAVE):
        for line in target.farewell():
            teller.line(line)
    teller.closing()


if __name__ == "__main__":
    sys.exit(main())
