"""The shipped engine catalog as cluster objects: applied by the operator, repaired when deleted or edited."""

from collections.abc import Mapping

from r1plus_contract import names
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.manifests.drift import in_sync, stamped
from r1plus_operator.plan.observation import Json


def engine_object(engine: Engine) -> Json:
    """The R1PlusEngine of a catalog entry."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_ENGINE,
        "metadata": {"name": engine.name, "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
        "spec": engine.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def missing(catalog: tuple[Engine, ...], live: Mapping[str, Json]) -> tuple[Json, ...]:
    """Entries that the cluster lacks or holds otherwise. Engines that others made are not touched."""
    desired = [stamped(engine_object(engine)) for engine in catalog]
    return tuple(obj for obj in desired if not in_sync(obj, live.get(obj["metadata"]["name"])))
