"""Golden suites of tenants: only those that are named are fetched, once per version, and little of them is kept."""

import re
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.monitor.settings import FORMER_SUITE_FILES, SUITE_FILES
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_operator.observe.suite_projection import project_suite_version
from r1plus_operator.observe.tenant_suites import MOST_BYTES, TenantSuites
from r1plus_operator.plan.accuracy.mounted_suites import MountedSuites, find_mounted_suites, hash_mounted_suites
from r1plus_operator.plan.manifests.drift import fold_texts
from r1plus_operator.plan.observation import SuiteSource
from support.golden_suites import NAME, altered, files_of

TEXTS = files_of().texts()
SIZE = sum(len(text.encode()) for text in TEXTS.values())


class Server:
    """Holds ConfigMaps, and counts who asks for which."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.fetched: list[tuple[str, str]] = []
        self.suites = TenantSuites(self, lambda event, entry: None, most_bytes=most_bytes)  # type: ignore[arg-type]

    def put(self, namespace: str, name: str = NAME, version: str = "1") -> None:
        meta = {"namespace": namespace, "name": name, "uid": f"u-{name}", "resourceVersion": version}
        self.objects[namespace, name] = {"metadata": meta, "data": TEXTS}
        self.suites.index.store.upsert(project_suite_version({"metadata": meta}))

    async def list(self, resource: object, namespace: str, *, name: str) -> tuple[list[dict[str, Any]], str]:
        self.fetched.append((namespace, name))
        return [obj for key, obj in self.objects.items() if key == (namespace, name)], "9"


@pytest.fixture
def server() -> Server:
    return Server()


async def test_only_what_is_named_is_fetched_and_read(server: Server) -> None:
    for name in (NAME, "other", "third"):
        server.put("a", name)
    found = await server.suites.load("a", {NAME, "absent"})
    assert list(found) == [NAME]
    assert found[NAME].suite is not None
    assert server.fetched == [("a", NAME)]
    assert server.suites.list_names("a") == {NAME, "other", "third"}


async def test_a_version_is_fetched_once_and_another_one_again(server: Server) -> None:
    server.put("a")
    for _ in range(3):
        await server.suites.load("a", {NAME})
    assert len(server.fetched) == 1
    server.put("a", version="2")
    await server.suites.load("a", {NAME})
    assert len(server.fetched) == 2


async def test_what_is_gone_is_kept_no_more(server: Server) -> None:
    server.put("a")
    assert list(await server.suites.load("a", {NAME})) == list(server.suites.list_cached("a")) == [NAME]
    server.suites.index.store.drop(("a", NAME))
    assert await server.suites.load("a", {NAME}) == {}
    assert server.suites.list_cached("a") == {}


async def test_one_that_went_before_it_was_fetched_is_a_suite_that_cannot_be_read(server: Server) -> None:
    server.put("a")
    server.objects.clear()
    found = await server.suites.load("a", {NAME})
    assert found[NAME].suite is None
    assert found[NAME].problem


async def test_a_figure_that_nothing_can_be_computed_from_is_a_problem_of_its_suite(server: Server) -> None:
    server.put("a")
    header = re.sub(r'"temperature":[ 0-9.]+', f'"temperature":{"9" * 400}', TEXTS["suite.json"])
    assert header != TEXTS["suite.json"]
    server.objects["a", NAME]["data"] = {**TEXTS, "suite.json": header}
    found = await server.suites.load("a", {NAME})
    assert found[NAME].suite is None
    assert "temperature: expected a finite number" in found[NAME].problem


async def test_a_tenants_many_suites_push_out_its_own_and_no_other_tenants() -> None:
    server = Server(most_bytes=8 * SIZE)
    server.put("quiet")
    await server.suites.load("quiet", {NAME})
    names = [f"s{number}" for number in range(10)]
    for name in names:
        server.put("noisy", name)
    assert len(await server.suites.load("noisy", names)) == 10, "a pass has all that it asked for"
    assert sorted(server.suites.list_cached("noisy")) == ["s8", "s9"]
    assert sorted(server.suites.list_cached("quiet")) == [NAME]


async def test_many_tenants_together_keep_no_more_than_the_limit() -> None:
    server = Server(most_bytes=4 * SIZE)
    for number in range(10):
        server.put(f"n{number}")
        await server.suites.load(f"n{number}", {NAME})
    kept = [number for number in range(10) if server.suites.list_cached(f"n{number}")]
    assert kept == [6, 7, 8, 9]


class Mounted:
    """The accuracy ConfigMap of a deployment, of which the caches keep digests."""

    def __init__(self, server: Server, **files: SuiteFiles) -> None:
        self.server = server
        self.put(**files)

    def put(self, suite: SuiteFiles, former: SuiteFiles | None = None) -> None:
        texts = dict(zip(SUITE_FILES, (suite.header, suite.items, suite.reference), strict=True))
        if former:
            texts |= zip(FORMER_SUITE_FILES, (former.header, former.items, former.reference), strict=True)
        self.live = {"kind": "ConfigMap", "data": {name: text for name, text in texts.items() if text}}
        self.server.objects["a", "credit-accuracy"] = self.live

    async def load(self) -> tuple[SuiteSource, ...]:
        return await self.server.suites.load_mounted("a", "credit-accuracy", hash_mounted_suites(fold_texts(self.live)))


async def test_mounted_suites_are_read_once_whatever_their_scorer_and_signature(server: Server) -> None:
    mounted = Mounted(server, suite=files_of(version="0"), former=files_of(name="former-v1"))
    for _ in range(3):
        found = await mounted.load()
    assert [(source.name, source.suite is not None) for source in found] == [(NAME, True), ("former-v1", True)]
    assert server.fetched == [("a", "credit-accuracy")]
    assert server.suites.list_cached("a") == {}, "no spec can name a mounted suite"
    mounted.put(suite=files_of())
    assert [source.name for source in await mounted.load()] == [NAME]
    assert len(server.fetched) == 2


async def test_a_mounted_suite_that_was_altered_is_passed_over(server: Server) -> None:
    assert await Mounted(server, suite=altered()).load() == ()


async def test_what_is_mounted_is_found_among_what_is_at_hand_byte_for_byte(server: Server) -> None:
    mounted = Mounted(server, suite=files_of())
    (source,) = await mounted.load()
    live = fold_texts(mounted.live)
    assert find_mounted_suites(live, [source]) == MountedSuites(source)
    assert find_mounted_suites(live, [replace(source, reference_text="{}")]) == MountedSuites(has_unread=True)
    assert find_mounted_suites(None, [source]) == MountedSuites()


async def test_mounted_suites_share_the_limit_of_their_namespace() -> None:
    server = Server(most_bytes=4 * SIZE)
    await Mounted(server, suite=files_of()).load()
    server.put("a")
    await server.suites.load("a", {NAME})
    await Mounted(server, suite=files_of()).load()
    assert server.fetched.count(("a", "credit-accuracy")) == 2
