"""The shipped engine catalog as cluster objects. The operator applies them, and restores deleted or edited ones."""

from collections.abc import Mapping

from r1plus_contract import names
from r1plus_model_repo.catalog.loader import AnyEngine
from r1plus_operator.plan.manifests.drift import is_in_sync, with_spec_hash
from r1plus_operator.plan.observation import Json


def build_engine_object(engine: AnyEngine) -> Json:
    """Return the R1PlusEngine of a catalog entry."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND_ENGINE,
        "metadata": {"name": engine.name, "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}},
        "spec": engine.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def list_missing_engines(catalog: tuple[AnyEngine, ...], live: Mapping[str, Json]) -> tuple[Json, ...]:
    """Return the catalog's objects that are missing or differ in the cluster. Other engines are not touched."""
    objects = [with_spec_hash(build_engine_object(engine)) for engine in catalog]
    return tuple(obj for obj in objects if not is_in_sync(obj, live.get(obj["metadata"]["name"])))
