"""Behaviours of reads: single objects, lists, selectors, pages."""

import asyncio

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ApiError, NotFoundError
from r1plus_operator.runtime.resources import Resource
from support.api_contract.cluster import CONFIG_MAP, R1P, Cluster, refusal

ABSENT_KIND = Resource("nobody.example", "v1", "things", "Thing")


async def _create_labelled(cluster: Cluster) -> None:
    labels: dict[str, dict[str, str]] = {"a": {"app": "x"}, "b": {"app": "y", "tier": "full"}, "c": {}}
    for name, of_one in labels.items():
        await cluster.client.create(CONFIG_MAP, cluster.config_map(name, of_one))


async def _list_names(cluster: Cluster, selector: str) -> list[str]:
    items, _ = await cluster.client.list(CONFIG_MAP, cluster.namespace, label_selector=selector)
    return [item["metadata"]["name"] for item in items]


async def an_absent_object_is_not_found(cluster: Cluster) -> None:
    assert await refusal(cluster.read(CONFIG_MAP, "no")) == (NotFoundError, "NotFound", [])


async def an_absent_kind_is_not_found_without_a_status(cluster: Cluster) -> None:
    assert await refusal(cluster.client.list(ABSENT_KIND, cluster.namespace)) == (NotFoundError, "Unknown", [])


async def a_list_of_an_absent_namespace_is_empty(cluster: Cluster) -> None:
    assert (await cluster.client.list(CONFIG_MAP, "no-such-namespace"))[0] == []


async def items_of_a_built_in_kind_have_no_kind(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    (item,), _ = await cluster.client.list(CONFIG_MAP, cluster.namespace, name="a")
    assert "kind" not in item
    assert "apiVersion" not in item


async def items_of_a_custom_kind_have_their_kind(cluster: Cluster) -> None:
    await cluster.client.create(R1P, cluster.r1plus_deployment())
    (item,), _ = await cluster.client.list(R1P, cluster.namespace)
    assert (item["apiVersion"], item["kind"]) == (R1P.api_version, R1P.kind)


async def a_list_by_name_has_that_object_only(cluster: Cluster) -> None:
    await _create_labelled(cluster)
    items, _ = await cluster.client.list(CONFIG_MAP, cluster.namespace, name="b")
    assert [item["metadata"]["name"] for item in items] == ["b"]


async def a_list_by_an_absent_name_is_empty(cluster: Cluster) -> None:
    assert (await cluster.client.list(CONFIG_MAP, cluster.namespace, name="no"))[0] == []


async def a_selector_takes_equality_and_inequality(cluster: Cluster) -> None:
    await _create_labelled(cluster)
    assert await _list_names(cluster, "app=x") == ["a"]
    assert await _list_names(cluster, "app!=x,!tier") == ["c"]


async def a_selector_takes_sets_and_existence(cluster: Cluster) -> None:
    await _create_labelled(cluster)
    assert await _list_names(cluster, "app in (x, y)") == ["a", "b"]
    assert await _list_names(cluster, "app notin (x)") == ["b", "c"]
    assert await _list_names(cluster, "tier") == ["b"]


async def a_list_is_in_the_order_of_names(cluster: Cluster) -> None:
    for name in ("b", "a", "a-1"):
        await cluster.client.create(CONFIG_MAP, cluster.config_map(name))
    assert await _list_names(cluster, "") == ["a", "a-1", "b"]


async def pages_are_of_one_version_and_complete(cluster: Cluster) -> None:
    await asyncio.gather(*(cluster.client.create(CONFIG_MAP, cluster.config_map(f"c{i}")) for i in range(5)))
    pages = [page async for page in cluster.client.iter_pages(CONFIG_MAP, cluster.namespace, limit=2)]
    assert [[item["metadata"]["name"] for item in items] for items, _ in pages] == [["c0", "c1"], ["c2", "c3"], ["c4"]]
    assert len({version for _, version in pages}) == 1


async def later_pages_show_what_was_there_at_the_first(cluster: Cluster) -> None:
    for name in ("a", "b", "c"):
        await cluster.client.create(CONFIG_MAP, cluster.config_map(name, x="1"))
    names = []
    async for items, _ in cluster.client.iter_pages(CONFIG_MAP, cluster.namespace, limit=1):
        names += [(item["metadata"]["name"], item["data"]["x"]) for item in items]
        if len(names) == 1:
            await cluster.client.delete(CONFIG_MAP, "b", cluster.namespace)
            await cluster.client.patch(CONFIG_MAP, "c", cluster.namespace, {"data": {"x": "2"}})
            await cluster.client.create(CONFIG_MAP, cluster.config_map("d", x="1"))
    assert names == [("a", "1"), ("b", "1"), ("c", "1")]


async def a_list_of_metadata_has_nothing_else(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map(x="1"))
    pages = [
        page async for page in cluster.client.iter_pages(CONFIG_MAP, cluster.namespace, name="a", metadata_only=True)
    ]
    ((item,), _) = pages[0]
    assert item["metadata"]["name"] == "a"
    assert "data" not in item


async def a_lists_version_is_a_number_and_not_older_than_its_objects(cluster: Cluster) -> None:
    made = await cluster.client.create(CONFIG_MAP, cluster.config_map())
    _, version = await cluster.client.list(CONFIG_MAP, cluster.namespace)
    assert int(version) >= int(made["metadata"]["resourceVersion"])


async def a_list_of_all_namespaces_has_this_one(cluster: Cluster) -> None:
    await cluster.client.create(CONFIG_MAP, cluster.config_map())
    items, _ = await cluster.client.list(CONFIG_MAP, name="a")
    assert cluster.namespace in [item["metadata"]["namespace"] for item in items]


async def a_document_that_is_no_object_can_be_read(cluster: Cluster) -> None:
    keys = await cluster.client.read_path("/openid/v1/jwks")
    assert keys["keys"]


async def a_path_that_is_nothing_is_not_found(cluster: Cluster) -> None:
    error, _, _ = await refusal(cluster.client.read_path("/no/such/path"))
    assert issubclass(error, ApiError)
    assert error is NotFoundError


async def a_cluster_scoped_object_is_read_without_a_namespace(cluster: Cluster) -> None:
    namespace = await cluster.client.get(kinds.NAMESPACE, cluster.namespace)
    assert namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] == cluster.namespace
    assert namespace["status"]["phase"] == "Active"
    assert namespace["spec"]["finalizers"] == ["kubernetes"]
