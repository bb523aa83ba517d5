"""The page at `/`: its files, what the browser may do with them, and what they may not contain."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from r1plus_gateway.http.page import PageFiles
from support.gateway.fake_triton import answer
from support.gateway.rig import Rig, running
from support.tables import for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = {name: file.body.decode() for name, file in PageFiles().files.items()}
LOADED = ("href", "src")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running(tmp_path_factory.mktemp("gateway"), answer("a")) as rig:
        yield rig


async def test_every_file_that_the_page_loads_is_served_without_a_key(rig: Rig) -> None:
    html = FILES["index.html"]
    names = {name for attribute in LOADED for name in re.findall(rf'{attribute}="(page/[^"]+)"', html)}
    imports = {f"page/{name}" for text in FILES.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert {f"page/{name}" for name in FILES} - {"page/index.html"} == names | imports
    for path in ("", *names, *imports):
        async with rig.client.get(f"{rig.url}/{path}") as response:
            assert response.status == 200, path
            assert (await response.text()) == FILES[path.removeprefix("page/") or "index.html"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_policy_lets_the_browser_load_these_files_alone(rig: Rig) -> None:
    async with rig.client.get(f"{rig.url}/") as response:
        policy = response.headers["Content-Security-Policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not [each for each in policy if "unsafe" in each or "*" in each or "http" in each]
        assert response.content_type == "text/html"
        assert response.charset == "utf-8"
        assert response.headers["Referrer-Policy"] == "no-referrer"


async def test_a_file_that_has_not_changed_is_not_sent_again(rig: Rig) -> None:
    async with rig.client.get(f"{rig.url}/page/main.js") as response:
        etag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "no-cache"
    for known, status in ((etag, 304), (f'"other", {etag}', 304), ('"other"', 200)):
        async with rig.client.get(f"{rig.url}/page/main.js", headers={"If-None-Match": known}) as response:
            assert (response.status, bool(await response.read())) == (status, status == 200)
            assert response.headers["ETag"] == etag


ABSENT = {
    "another file": "/page/other.js",
    "the folder": "/page/",
    "a path out of it": "/page/..%2fsettings.py",
    "the page by its file": "/page/index.html",
}


@for_each("path", ABSENT)
async def test_nothing_else_is_served(rig: Rig, path: str) -> None:
    async with rig.client.get(f"{rig.url}{path}") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"


FORBIDDEN = {
    "markup from strings": (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser",
        "body.innerHTML = answer;",
    ),
    "code from strings": (r"\beval\(|new Function|setTimeout\(\s*[\"'`]", 'setTimeout("ask()", 1);'),
    "styles or handlers in the markup": (r"\sstyle=|\son[a-z]+=", '<button onclick="ask()">'),
    "other hosts": (r"(?:src|href|url|fetch|open)\W{1,3}(?:https?:)?//", '<script src="https://example.com/a.js">'),
    "storage that outlives the tab": (r"localStorage|document\.cookie|indexedDB", "localStorage.key = key;"),
}


@for_each("pattern, example", FORBIDDEN)
async def test_no_file_has(pattern: str, example: str) -> None:
    assert re.search(pattern, example)
    assert {"index.html", "ask.js"} <= FILES.keys()
    assert [name for name, text in FILES.items() if re.search(pattern, text)] == []
