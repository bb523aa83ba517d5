"""ControllerRevisions that lost the operator's mark. The caches select by it, so these are fetched by name.

A revision stores verdicts and a promotion, which nothing else remembers. An apply over one that is not seen would lose
both, and move traffic away. So a pass looks for each revision that left the cache, and for each whose Deployment is
there without it. What its R1PlusDeployment still controls is taken as it is, and the pass restores the mark. Status and
gateway go by what was found meanwhile: it serves. One that is gone and serves is made again
(`plan.revision.restored`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.observe import projections
from r1plus_operator.observe.caches import Caches, format_deployment_index
from r1plus_operator.observe.keys import DeploymentKey
from r1plus_operator.observe.projections import Child
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.revision.restored import find_selected, restore_revision
from r1plus_operator.runtime.client import ApiClient

REVISION, CONFIG_MAP = kinds.BY_KIND["ControllerRevision"], kinds.BY_KIND["ConfigMap"]


@dataclass(frozen=True, slots=True)
class UnmarkedRevisions:
    """What the API server has under names of a deployment's revisions that the cache lacks."""

    own: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    """(kind, name) -> live object that the R1PlusDeployment controls."""
    foreign: tuple[str, ...] = ()
    """Names of those that have neither the mark nor that controller."""
    orphans: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    """Of these, the objects that nothing controls. They may serve, so the status goes by them; nothing is written."""

    @property
    def objection(self) -> str:
        """Why nothing is written, with the remedy; empty: everything may be."""
        if not self.foreign:
            return ""
        return (
            f"ControllerRevision {', '.join(self.foreign)} has neither the label {names.LABEL_MANAGED_BY}="
            f"{names.MANAGED_BY} nor the R1PlusDeployment as controller, so the operator does not overwrite it, and"
            " its verdicts count again once it is restored; ask an administrator to put the label back"
            " (docs/admission.md)"
        )


_NONE = UnmarkedRevisions()


class RevisionFinder:
    """Remembers which revisions left the cache, and fetches them for a pass."""

    def __init__(self, client: ApiClient, caches: Caches, crs: Mapping[DeploymentKey, Json]) -> None:
        self._client = client
        self._caches = caches
        self._crs = crs
        self._lost = caches.lost_revisions

    def record_lost(self, revision: Child) -> None:
        """Record a revision that left the cache: it was deleted, or somebody removed its mark."""
        for name in revision.deployments:
            if (key := DeploymentKey(revision.namespace, name)) in self._crs:
                self._lost.setdefault(key, {})[revision.name] = revision

    def forget(self, key: DeploymentKey) -> None:
        """Forget what an R1PlusDeployment has lost: it is gone, or has all of it again."""
        self._lost.pop(key, None)

    async def find(self, key: DeploymentKey) -> UnmarkedRevisions:
        """Return the revisions that a CR has outside the cache; none of them is usual.

        Raises ApiError if they cannot be fetched.
        """
        cr = self._crs.get(key)
        if cr is None:
            return _NONE
        uid = cr["metadata"]["uid"]
        cached, running = self._list_names(REVISION.kind, key, uid), self._list_names("Deployment", key, uid)
        names_to_fetch = (running | self._lost.get(key, {}).keys()) - cached
        if not names_to_fetch:  # As in nearly every pass.
            self.forget(key)
            return _NONE
        own: dict[tuple[str, str], Json] = {}
        orphans: dict[tuple[str, str], Json] = {}
        foreign: list[str] = []
        found: dict[str, Child] = {}
        for name in sorted(names_to_fetch):
            revision = await self._fetch(key.namespace, name)
            if revision is None:
                own |= await self._restore(key, uid, name)
                continue
            if revision.owner == uid or (_is_marked(revision) and not revision.owner and revision.label == key.name):
                own[REVISION.kind, name] = revision.live
            elif not _is_marked(revision):
                foreign.append(name)
                orphans |= {} if revision.owner else {(REVISION.kind, name): revision.live}
            else:
                continue  # Another R1PlusDeployment has it.
            found[name] = revision
        if key in self._crs:
            # Meanwhile others may have left the cache, or have come back.
            later = {name: one for name, one in self._lost.get(key, {}).items() if name not in names_to_fetch}
            self._store_lost(key, {**later, **found}, self._list_names(REVISION.kind, key, uid))
        return UnmarkedRevisions(own, tuple(foreign), orphans)

    def _list_names(self, kind: str, key: DeploymentKey, uid: str) -> set[str]:
        store = self._caches.children[kind].store
        children = (child for index in (format_deployment_index(*key), uid) for child in store.by_index(index))
        return {child.name for child in children if not child.is_deleting}

    async def _fetch(self, namespace: str, name: str) -> Child | None:
        objects, _ = await self._client.list(REVISION, namespace, name=name)
        found = [projections.project_child(REVISION, obj) for obj in objects]
        return next((revision for revision in found if not revision.is_deleting), None)

    async def _restore(self, key: DeploymentKey, uid: str, name: str) -> dict[tuple[str, str], Json]:
        """Return the revision that serves and is gone, as its Deployment and its ConfigMap have it; else nothing."""
        children = self._caches.list_children(key, uid)
        deployment = children.get(("Deployment", name))
        if deployment is None or find_selected(children, key.name) != name:
            return {}
        # In full: the cache has only digests of long texts.
        configs, _ = await self._client.list(CONFIG_MAP, key.namespace, name=name)
        config = next((one for one in configs if projections.find_controller(one["metadata"]).get("uid") == uid), None)
        revision = restore_revision(deployment, config) if config else None
        return {(REVISION.kind, name): revision} if revision else {}

    def _store_lost(self, key: DeploymentKey, revisions: Mapping[str, Child], cached: set[str]) -> None:
        if lost := {name: revision for name, revision in revisions.items() if name not in cached}:
            self._lost[key] = lost
        else:
            self._lost.pop(key, None)


def _is_marked(revision: Child) -> bool:
    labels = revision.live["metadata"].get("labels") or {}
    return bool(labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY)
