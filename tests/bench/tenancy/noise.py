"""Somebody who edits CRs in a loop: a process of its own, so that what times the others does not wait for its edits."""

import asyncio
import contextlib
import dataclasses
import itertools
import math
import multiprocessing
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from r1plus_operator.api import crd, kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
from support.waiting import eventually

Json = dict[str, Any]
SPEC: Json = {"tier": "full", "context": {"maxTokens": 1024}}
TWIN = dataclasses.replace(kinds.R1PLUS_DEPLOYMENT, group="bench.example.com")
"""The same kind again, in a group that no operator follows."""
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Noise:
    """One edit after the other, over and over."""

    kubeconfig: Path
    kind: Resource
    namespace: str
    crs: int
    """`d0`, `d1`, ... of the namespace are edited."""
    at_most: float = math.inf
    """Edits per second."""
    annotation: str = ""
    """Text that each of them has in an annotation."""

    def cr(self, number: int, probes: int) -> Json:
        """Return one of them, as its next edit leaves it."""
        made = deployment(self.kind, self.namespace, f"d{number}", probes)
        if self.annotation:
            made["metadata"]["annotations"] = {"example.com/text": self.annotation}
        return made


@dataclass(frozen=True, slots=True)
class Heard:
    """What has been made of a noise so far."""

    edits: "Synchronized[int]"
    process: BaseProcess
    began: float = field(default_factory=time.perf_counter)

    @property
    def rate(self) -> float:
        """Edits per second, up to now."""
        return self.edits.value / (time.perf_counter() - self.began)

    async def until(self, edits: int, seconds: float = 600.0) -> None:
        """Wait for so many, or for its end; WaitError after `seconds`."""
        await eventually(
            lambda: self.edits.value >= edits or not self.process.is_alive(), f"{edits} edits, or their end", seconds
        )


def deployment(kind: Resource, namespace: str, name: str, probes: int) -> Json:
    """The CR that everything here is about."""
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name, "namespace": namespace}}
    return {**head, "spec": {**SPEC, "accuracy": {"probesPerMinute": probes}}}


def twin() -> Json:
    """Return the CRD of `TWIN`."""
    made = crd.build_deployment_definition()
    made["metadata"]["name"], made["spec"]["group"] = TWIN.name, TWIN.group
    return made


@asynccontextmanager
async def made(noise: Noise) -> AsyncIterator[Heard]:
    """The noise, from its first edit to the end of the block."""
    edits = _SPAWN.Value("L", 0)
    process = _SPAWN.Process(target=_make, args=(noise, edits), daemon=True)
    process.start()
    try:
        await Heard(edits, process).until(1)
        yield Heard(edits, process)
        if not process.is_alive():
            raise RuntimeError("the noise ended before its time; above is why")
    finally:
        process.terminate()
        process.join()


def _make(noise: Noise, edits: "Synchronized[int]") -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_edit(noise, edits))


async def _edit(noise: Noise, edits: "Synchronized[int]") -> None:
    async with ApiClient.from_kubeconfig(noise.kubeconfig) as user:
        began = time.perf_counter()
        for probes in itertools.cycle(range(1, 60)):
            for number in range(noise.crs):
                await asyncio.sleep(began + edits.value / noise.at_most - time.perf_counter())
                await user.apply(noise.kind, noise.cr(number, probes), field_manager="kubectl")
                edits.value += 1
