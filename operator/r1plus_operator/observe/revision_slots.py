"""Slots that ControllerRevisions hold in waves, as the caches show them. The observer calls it at each change."""

from collections.abc import Mapping

from r1plus_operator.observe.caches import Caches
from r1plus_operator.observe.keys import DeploymentKey, Enqueue
from r1plus_operator.observe.projections import Child
from r1plus_operator.observe.waves import Waves
from r1plus_operator.plan.observation import Json

REVISION = "ControllerRevision"


class RevisionSlots:
    """Keeps `waves` up to date, and enqueues the deployments whose turn it is."""

    def __init__(self, caches: Caches, crs: Mapping[DeploymentKey, Json], waves: Waves, enqueue: Enqueue) -> None:
        self._caches = caches
        self._crs = crs
        self._waves = waves
        self._enqueue = enqueue

    def release(self, key: DeploymentKey) -> None:
        """Release a deployment's unused slot after its pass."""
        self._waves.release(key)
        self.enqueue_turns()

    def enqueue_turns(self) -> None:
        """Enqueue the deployments whose turn it is."""
        for key in self._waves.list_turns():
            self._enqueue(key)

    def leave(self, key: DeploymentKey, uid: str) -> None:
        """Free the turn and the slots of an R1PlusDeployment that is going."""
        self._waves.set_waiting(key, None)
        self.record_all(uid)

    def record_all(self, uid: str) -> None:
        """Record the revisions of an R1PlusDeployment that came or went."""
        for revision in self._caches.children[REVISION].store.by_index(uid):
            self.record(revision)
        self.enqueue_turns()

    def record(self, revision: Child) -> None:
        """Record what a revision says of its refresh, and enqueue the deployments for which that changes something.

        No pass would end the refresh of a revision that is orphaned or being deleted, whose deployment is being
        deleted, or whose namespace is no tenant any more: such a revision holds no slot.
        """
        key = DeploymentKey(revision.namespace, min(revision.deployments, default=""))
        owner = self._crs.get(key)
        namespace = self._caches.find_namespace(revision.namespace)
        is_live = owner is not None and "deletionTimestamp" not in owner["metadata"] and not revision.is_deleting
        is_owned = owner is not None and owner["metadata"]["uid"] == revision.owner
        is_counted = is_live and is_owned and namespace is not None and namespace.is_tenant
        refresh = revision.refresh if is_counted else None
        for waiting_key in self._waves.record((revision.namespace, revision.name), key, refresh):
            self._enqueue(waiting_key)

    def forget(self, revision: tuple[str, str]) -> None:
        """Free the slot of a revision that is gone. `revision`: (namespace, name)."""
        for waiting_key in self._waves.forget(revision):
            self._enqueue(waiting_key)
