"""`make demo`, or PYTHONPATH=tests python -m e2e.demo: from nothing to right answers, a wrong engine refused."""

import argparse
import signal
import sys
from functools import partial
from types import FrameType

from devcluster import kubeconfig, space
from devcluster.cluster import Cluster
from devcluster.shell import CommandError
from devcluster.steps import Steps
from e2e import chart, parts, story
from e2e.demo.data import use_data
from e2e.demo.families import FAMILIES, SMOLLM2, Family, build_manifests, make_engines
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
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default=SMOLLM2.name, help="model family that is served")
    teller, family = Teller(), FAMILIES[parser.parse_args().family]
    target: Target | None = None
    try:
        target, family = _prepare(family, teller)
        _play(target, family, teller)
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


def _prepare(family: Family, teller: Teller) -> tuple[Target, Family]:
    """Steps 1 to 3: everything that the story needs; with a cluster of one's own only chart and engines."""
    steps = Steps()
    if given := kubeconfig.of_ones_own():
        with teller.stage(Stage.BUILD):
            teller.line(f"KUBECONFIG names a cluster of your own, {given}: using it, building nothing")
            made = parts.given(parts.given_path())
            manifests = build_manifests(family, made)
        target: Target = GivenTarget(Kube(given))
    else:
        with teller.stage(Stage.BUILD):
            space.require(family.disk_bytes)
            family, engines = make_engines(family, partial(parts.make_engines, steps), teller.line)
            made = parts.build(steps, engines)
            manifests = build_manifests(family, made)
        with teller.stage(Stage.START):
            target = _start(steps, made)
            for line in target.describe_entrance():
                teller.line(line)
    with teller.stage(Stage.INSTALL):
        steps.expect(1)
        with steps.step("helm upgrade --install r1plus"):
            chart.install(target.kube, made, {"defaultFamily": family.name})
        for manifest in manifests:
            target.kube.apply(manifest)
    return target, family


def _start(steps: Steps, made: parts.Parts) -> EmbeddedTarget:
    cluster = Cluster.up(steps, list(made.own))
    steps.expect(1)
    with steps.step("images of r1plus into the cluster") as step:
        for number, image in enumerate(made.archives):
            step.progress(number / len(made.archives), image.ref)
            cluster.import_image(image)
    return EmbeddedTarget(cluster, Kube(cluster.kubeconfig))


def _play(target: Target, family: Family, teller: Teller) -> None:
    """Steps 4 to 8."""
    names = [story.name_in(example) for example in (story.FULL, story.LITE, story.EDGE)]
    with teller.stage(Stage.SERVE):
        serve(target, family, names, teller)
    with teller.stage(Stage.ASK):
        key = ask_each(target, names, teller)
    with teller.stage(Stage.KEEP):
        use_data(target, names[0], key, teller)
    with teller.stage(Stage.REFUSE):
        refuse(target, family, names[0], key, teller)
        observe(target, names[0], key, teller)
        recall(target, names[0], teller)
    with teller.stage(Stage.LEAVE):
        for line in target.farewell():
            teller.line(line)
    teller.closing()


if __name__ == "__main__":
    sys.exit(main())
