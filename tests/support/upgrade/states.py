"""The deployments of a stored cluster: each is brought to its state by one method. For the recorder."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import yaml

from devcluster.apiserver_only import ApiServer
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.rollout.actions import request_action
from r1plus_cli.suite.storage import render_manifest
from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import FillPhase, FillProgress
from r1plus_contract.jsonable import to_jsonable
from r1plus_contract.monitor.outcomes import ProbeResult
from r1plus_contract.requests import Request, Verb, build_annotations
from r1plus_contract.suites.suite import load_suite
from r1plus_contract.verdict import Shadow
from r1plus_operator.api import kinds
from r1plus_operator.observe.suite_signature import generate_key, sign
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.runtime.client import ApiClient
from support.upgrade.fixture import TENANT_NAMESPACE
from support.upgrade.kubelet import Kubelet
from support.upgrade.monitors import OUTCOMES, PROGRESS, VERDICT
from support.upgrade.reports import Monitored
from support.upgrade.rig import ITEMS, NAME, Tenant, files_of
from support.waiting import eventually

Json = dict[str, Any]
ROLLBACK: Json = {"accuracy": {"onBreach": "Rollback"}}
LOST = 6
"""Items of a suite of about 210, where 4 may be lost."""


class Recording:
    """The tenant's namespace with the deployments in it, each brought to its state by one method."""

    def __init__(self, server: ApiServer, client: ApiClient, kubelet: Kubelet) -> None:
        self.tenant = Tenant(client, TENANT_NAMESPACE, None)  # type: ignore[arg-type]
        self.next: dict[str, Json] = {}
        """Revision -> what its monitor answers next, for the test in which time goes on."""
        self._cluster = KubernetesCluster(str(server.kubeconfig))
        self._key = generate_key()
        self._kubelet = kubelet
        self._answers: dict[str, Json] = {}
        """Revision -> what the monitors of its pods answer, those to come included."""

    # -- The states --------------------------------------------------------------------------------------------------

    async def served(self) -> None:
        """Serves after two promotions, and lets another namespace in."""
        await self.bring_up("served", 1024)
        await self.bring_up("served", 2048, access={"namespaces": ["shop"]})

    async def rolled_back(self) -> None:
        """The second revision fell, and traffic went back to the first. The spec still asks for the second."""
        good, bad = await self.two_revisions("rolled-back", **ROLLBACK)
        await self.fall("rolled-back", good, bad)
        token = await self.order("rolled-back")
        about = await self.monitored("rolled-back", good)
        self.say(good, about.watching(about.gate(control=token)))
        await self.serves("rolled-back", good)
        await self.tenant.until("rolled-back", "QualityVerified", "False", "RolledBack")
        await self.let_go("rolled-back", bad)

    async def returned(self) -> None:
        """A person asked to go back, and the first revision passed again."""
        good, bad = await self.two_revisions("returned", accuracy=self.own_terms())
        await self.let_go("returned", good)
        await self.ask("returned", Verb.ROLLBACK, "answers are too long")
        token = await self.order("returned")
        about = await self.monitored("returned", good)
        self.say(good, about.watching(about.gate(control=token)))
        await self.serves("returned", good)
        await self.tenant.until("returned", "QualityVerified", "False", "RolledBack")
        await self.let_go("returned", bad)

    async def pinned(self) -> None:
        """Pinned by `r1plus pin`; the spec asks for a third revision since."""
        await self.two_revisions("pinned", accuracy=self.own_terms())
        await self.ask("pinned", Verb.PIN, "quarter-end")
        patch = {"spec": {"context": {"maxTokens": 4096}}}
        await self.tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "pinned", TENANT_NAMESPACE, patch)
        await self.tenant.until("pinned", "Progressing", "False", "Pinned")

    async def unpinned(self) -> None:
        """Pinned and let go again."""
        await self.two_revisions("unpinned", accuracy=self.own_terms())
        await self.ask("unpinned", Verb.PIN, "quarter-end")
        await self.ask("unpinned", Verb.UNPIN, "the quarter is over")
        await eventually(lambda: self.is_complete("unpinned"), "the pin is off")

    async def paused(self) -> None:
        """Paused by `r1plus pause`."""
        await self.two_revisions("paused", accuracy=self.own_terms())
        await self.ask("paused", Verb.PAUSE, "maintenance of the network")
        await self.tenant.until("paused", "Progressing", "False", "Paused")

    async def resumed(self) -> None:
        """Paused, and resumed again."""
        await self.two_revisions("resumed", accuracy=self.own_terms())
        await self.ask("resumed", Verb.PAUSE, "maintenance of the network")
        await self.tenant.until("resumed", "Progressing", "False", "Paused")
        await self.ask("resumed", Verb.RESUME, "the network is back")
        await eventually(lambda: self.is_complete("resumed"), "the rollout is resumed")

    async def refreshed(self) -> None:
        """Newer images were asked for, and there are none: `r1plus refresh` would say so, and kubectl does not."""
        _, serving = await self.two_revisions("refreshed", accuracy=self.own_terms())
        meta = (await self.tenant.cr("refreshed"))["metadata"]
        request = Request("ops@example.com", "CVE-2026-1", _now(), serving, 1, meta["uid"])
        patch = {"metadata": {"annotations": build_annotations(Verb.REFRESH, request)}}
        await self.tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "refreshed", TENANT_NAMESPACE, patch)
        await eventually(lambda: self.has_refresh(serving), "the request is answered")

    async def gating(self) -> None:
        """A third revision is being gated while the second serves."""
        await self.two_revisions("gating")
        candidate = await self.deploy("gating", 4096)
        about = await self.monitored("gating", candidate)
        self.say(candidate, about.gating(40))
        await self.tenant.until("gating", "QualityVerified", "Unknown", "GateRunning")
        self.next[candidate] = {VERDICT: about.watching(about.gate()), OUTCOMES: about.outcomes(())}

    async def refused(self) -> None:
        """A third revision failed its gate, and the second goes on serving."""
        await self.two_revisions("refused")
        candidate = await self.deploy("refused", 2048, engine={"precision": "Q4_1"})
        about = await self.monitored("refused", candidate)
        self.say(candidate, about.watching(about.gate(lost=97)))
        await self.tenant.until("refused", "Progressing", "False", "CandidateRefused")

    async def dropping(self) -> None:
        """The second revision fell, its pooled detector rang as well, and the first is being swept again."""
        good, bad = await self.two_revisions("dropping", **ROLLBACK)
        page = (await self.monitored("dropping", bad)).outcomes([ProbeResult.INCORRECT] * 60)
        self.answer(bad, {OUTCOMES: page})
        await eventually(lambda: self.has_pool(bad), "an alarm of the pooled detector is stored")
        await self.fall("dropping", good, bad)
        token = await self.order("dropping")
        about = await self.monitored("dropping", good)
        self.say(good, about.gating(40))
        decided = about.watching(about.gate(control=token))
        self.next[good] = {VERDICT: decided, OUTCOMES: about.outcomes(())}
        await self.tenant.until("dropping", "Progressing", "True", "RollingBack")

    async def quarantined(self) -> None:
        """One pod of two fell alone: it is in quarantine, and another one serves in its place."""
        _, serving = await self.two_revisions("quarantined", replicas=2, **ROLLBACK)
        await eventually(lambda: self.has_ready("quarantined", 2), "two pods serve")
        about = await self.monitored("quarantined", serving)
        bad = self.pods(serving)[0]
        self._kubelet.monitors[bad].answers[VERDICT] = about.fallen(about.gate(), LOST)
        await self.tenant.until("quarantined", "QualityVerified", "True", "BadPod")
        await eventually(lambda: self.has_ready("quarantined", 2), "a new pod serves in its place")

    async def in_place(self) -> None:
        """For want of room the second revision was stopped so that the third can be gated."""
        terms = {"rollout": {"strategy": "InPlace"}, "accuracy": self.own_terms()}
        await self.two_revisions("in-place", **terms)
        candidate = await self.deploy("in-place", 4096, **terms)
        self.say(candidate, (await self.monitored("in-place", candidate)).gating(70))
        await self.tenant.until("in-place", "QualityVerified", "Unknown", "GateRunning")
        await self.tenant.until("in-place", "Ready", "False", "InPlaceRollout")

    async def observed(self) -> None:
        """The second revision failed its gate and serves, since the gate only observes."""
        await self.bring_up("observed", 1024)
        candidate = await self.deploy("observed", 2048, engine={"precision": "Q4_1"}, accuracy={"gate": "Observe"})
        about = await self.monitored("observed", candidate)
        self.say(candidate, about.watching(about.gate(lost=97), is_admitted=True))
        await self.serves("observed", candidate)
        await self.tenant.until("observed", "QualityVerified", "False", "GateFailed")

    async def acknowledged(self) -> None:
        """The second revision fell, somebody acknowledged that, and it passed its gate again beside traffic."""
        _, bad = await self.two_revisions("acknowledged")
        about = await self.monitored("acknowledged", bad)
        self.say(bad, about.fallen(about.gate(), LOST))
        await self.tenant.until("acknowledged", "QualityVerified", "False", "BelowThreshold")
        await self.ask("acknowledged", Verb.ACK, "the node has its old driver again")
        await eventually(lambda: self.has_token("acknowledged"), "monitors have the acknowledgement")
        about = await self.monitored("acknowledged", bad)
        token = about.settings["acknowledged"]
        self.say(bad, about.watching(about.gate(batch=1, acknowledged=token)))
        await self.tenant.until("acknowledged", "QualityVerified", "True", "GatePassed")

    async def on_volume(self) -> None:
        """The engine was brought to a volume, and both revisions were served from it."""
        volume = {"delivery": {"mode": "Volume"}}
        await self.tenant.deploy("on-volume", tier="full", context={"maxTokens": 1024}, **volume)
        self._kubelet.filled.add(await self.volume("on-volume"))
        await self.two_revisions("on-volume", **volume)

    async def filling(self) -> None:
        """What serves came in its engine's image; the next revision waits for its engine on a volume."""
        await self.bring_up("filling", 1024, tier="lite")
        await self.tenant.deploy("filling", tier="lite", context={"maxTokens": 1024}, delivery={"mode": "Volume"})
        volume = await self.volume("filling")
        await eventually(lambda: bool(self.pods(volume)), "the Job's pod runs")
        (pod,) = self.pods(volume)
        progress = FillProgress(FillPhase.FETCHING, 45, 100)
        self._kubelet.monitors[pod].answers[PROGRESS] = to_jsonable(progress)
        await self.tenant.until("filling", "EngineReady", "Unknown", "Delivering")
        await eventually(lambda: self.tells("filling", "EngineReady", "40 %"), "its progress shows")

    async def own_suite(self) -> None:
        """Judged by the tenant's own signed suite, whose next version is asked beside it."""
        _, serving = await self.two_revisions("own-suite", accuracy=self.own_terms())
        await self.deploy_again("own-suite", 2048, accuracy=self.own_terms("bank-v2"))
        await self.tenant.until("own-suite", "QualityVerified", "Unknown", "SuiteShadowed")
        about = await self.monitored("own-suite", serving)
        shadow = Shadow("bank-v2", about.settings["suiteHash"], 40)
        self.say(serving, about.watching(about.gate(), shadow=shadow))
        await eventually(lambda: self.tells("own-suite", "QualityVerified", "40 %"), "its progress shows")

    # -- What they are made of ---------------------------------------------------------------------------------------

    async def two_revisions(self, name: str, **spec: Any) -> tuple[str, str]:
        """Bring up one revision and then the next, and wait until the first has drained."""
        first = await self.bring_up(name, 1024, **spec)
        second = await self.bring_up(name, 2048, **spec)
        await self.tenant.absent("Deployment", first)
        return first, second

    async def bring_up(self, name: str, context: int, **spec: Any) -> str:
        """Deploy, pass the gate, take traffic; return the revision."""
        revision = await self.deploy(name, context, **spec)
        about = await self.monitored(name, revision)
        self.say(revision, about.watching(about.gate()))
        await self.serves(name, revision)
        return revision

    async def deploy(self, name: str, context: int, **spec: Any) -> str:
        """Apply the spec, and return the candidate that follows, whose Deployment is there."""
        await self.deploy_again(name, context, **spec)
        candidate = await self.tenant.candidate(name)
        await self.tenant.present("Deployment", candidate)
        return candidate

    async def deploy_again(self, name: str, context: int, **spec: Any) -> None:
        """Apply the spec."""
        await self.tenant.deploy(name, **{"tier": "full", "context": {"maxTokens": context}} | spec)

    async def serves(self, name: str, revision: str) -> None:
        """Wait until traffic goes to the revision, and the status says so."""

        async def is_there() -> bool:
            service = await self.tenant.present("Service", name)
            status = (await self.tenant.cr(name)).get("status", {})
            selected = service["spec"]["selector"][names.LABEL_REVISION]
            return bool(selected == revision == status.get("revision") and status.get("readyReplicas"))

        await eventually(is_there, f"{revision} serves")

    async def fall(self, name: str, good: str, bad: str) -> None:
        """The serving revision counts below its threshold; a control of the good one begins."""
        await self.let_go(name, good)
        about = await self.monitored(name, bad)
        self.say(bad, about.fallen(about.gate(), LOST))
        await self.tenant.until(name, "Progressing", "True", "RollingBack")

    async def let_go(self, name: str, revision: str) -> None:
        """Wait until no pod of a revision is left, and let those to come say nothing yet."""
        await self.tenant.absent("Deployment", revision)
        await eventually(lambda: not self.pods(revision), f"{name}: pods of {revision} are gone")
        self._answers.pop(revision, None)

    async def order(self, name: str) -> str:
        """Return the token of the control that the monitors are ordered to run."""

        async def token() -> str:
            return str(((await self.tenant.settings(name)).get("control") or {}).get("token", ""))

        return str(await eventually(token, f"{name}: a control is ordered"))

    async def monitored(self, name: str, revision: str) -> Monitored:
        """Return what a revision's monitors know."""
        stored = read_revision(await self.tenant.present("ControllerRevision", revision))
        data = (await self.tenant.present("ConfigMap", f"{name}-accuracy"))["data"]
        settings = json.loads(data["settings.json"])
        is_former = stored.identity_digest in (settings["former"] or {}).get("identities", ())
        prefix = "former-" if is_former else ""
        suite = load_suite(data[f"{prefix}suite.json"], data[f"{prefix}items.jsonl"])
        return Monitored(stored, suite, settings, await self.tenant.config_digest(name))

    async def volume(self, name: str) -> str:
        """Return the volume of the candidate, whose Job is there."""
        candidate = await self.tenant.candidate(name)
        volume = read_revision(await self.tenant.present("ControllerRevision", candidate)).volume
        assert volume is not None
        await self.tenant.present("Job", volume.name)
        return volume.name

    async def put_suites(self) -> None:
        """`kubectl apply -f` of what `r1plus suite sign --configmap` writes: the tenant's own suite in two versions."""
        for files in (files_of(), files_of((replace(ITEMS[0], prompt="easier?"), *ITEMS[1:]), name="bank-v2")):
            body = yaml.safe_load(render_manifest(sign(files, self._key), TENANT_NAMESPACE))
            await self.tenant.client.apply(kinds.CONFIG_MAP, body, field_manager="kubectl")

    def own_terms(self, suite: str = NAME) -> Json:
        """Return `spec.accuracy` of what is judged by one of them."""
        return {"suite": suite, "suiteKeys": [self._key.public]}

    async def ask(self, name: str, verb: Verb, why: str) -> None:
        """`r1plus VERB`."""
        await asyncio.to_thread(request_action, self._cluster, TENANT_NAMESPACE, name, verb, why, datetime.now(UTC))

    def say(self, revision: str, report: Json) -> None:
        """Let the monitors of all pods of a revision send this report."""
        self.answer(revision, {VERDICT: report})

    def answer(self, revision: str, answers: Json) -> None:
        """Let them give these answers, in addition to those that they give already."""
        known = self._answers.setdefault(revision, {})
        known |= answers
        for pod in self.pods(revision):
            self._kubelet.monitors[pod].answers |= answers

    def pods(self, revision: str) -> list[str]:
        """Return the pods of a revision, or of the Job of a volume."""
        return [pod for pod in self._kubelet.monitors if pod.startswith(f"{revision}-")]

    def answer_for_new_pods(self) -> None:
        """Let pods that have come since say what their revision's monitors say."""
        for pod, monitor in list(self._kubelet.monitors.items()):
            revision = pod.rsplit("-", 2)[0]
            if not monitor.answers and revision in self._answers:
                monitor.answers |= self._answers[revision]

    async def has_pool(self, revision: str) -> bool:
        """Whether a checkpoint of the pooled detector is stored."""
        return bool(read_revision(await self.tenant.present("ControllerRevision", revision)).pool)

    async def has_refresh(self, revision: str) -> bool:
        """Whether an answer to a request for newer images is stored."""
        return read_revision(await self.tenant.present("ControllerRevision", revision)).refresh is not None

    async def is_complete(self, name: str) -> bool:
        """Whether nothing holds its rollout, and none is under way."""
        return (await self.tenant.condition(name, "Progressing"))[:2] == ("False", "Complete")

    async def has_ready(self, name: str, count: int) -> bool:
        """Whether so many pods of the serving revision are Ready."""
        return bool((await self.tenant.cr(name))["status"].get("readyReplicas") == count)

    async def has_token(self, name: str) -> bool:
        """Return whether monitors have an acknowledgement."""
        return bool((await self.tenant.settings(name))["acknowledged"])

    async def tells(self, name: str, condition: str, words: str) -> bool:
        """Whether a condition's message has these words."""
        return words in (await self.tenant.condition(name, condition))[2]

    @property
    def states(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """All deployments."""
        return [
            self.served, self.rolled_back, self.returned, self.pinned, self.gating, self.refused, self.dropping,
            self.quarantined, self.in_place, self.observed, self.acknowledged, self.on_volume, self.filling,
            self.own_suite, self.unpinned, self.paused, self.resumed, self.refreshed,
        ]  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
