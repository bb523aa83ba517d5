"""No test waits for real seconds, or gives up what takes longer than a part of one."""

from pathlib import Path

from support.real_seconds import find_real_seconds
from support.tables import for_each

TESTS = Path(__file__).parents[2]
MEASURING = TESTS / "bench"
"""Programs that measure seconds, and test nothing."""

ALLOWED = {
    "apiserver/test_bad_input.py is_resting": "a hot loop shows only in time that passes; a slow machine fails no sooner",
    "apiserver/test_health.py busy": "the pace at which something changes at the real API server",
    "conformance/scripts/openai_client.py an_asynchronous_call_that_is_cancelled": "a client's own limit; any moment is right",
    "conformance/scripts/open_webui_client.py wait_for": "the pace at which a front end that starts is looked at",
    "e2e/isolation/test_9_again.py test_a_name_that_is_made_again_inherits_nothing": "a token has not expired meanwhile",
    "faults/rig.py Operator": "the pace at which a kubelet starts a process again",
    "faults/scenario.py Story": "the pace at which a kubelet looks again",
    "faults/seed.py _lateness": "measures how late a loop is",
    "runner/part.py RunningPart": "the pace at which the runner looks at its processes",
    "support/gateway/fake_triton.py count_up": "the pace of an engine whose answer lasts for minutes",
    "support/upgrade/record.py run_kubelet": "the pace of a kubelet's steps",
    "unit/calculator/test_server.py test_hostile_expressions_end_in_an_answer_or_an_error_and_no_process_dies": (
        "the time of a worker is one of the ends that are right, so a slow machine fails nothing"
    ),
    "unit/monitoring/test_connection_limits.py send_what_is_taken": (
        "ends a sender whose server takes no more; a slow machine ends it sooner, and less was sent"
    ),
}
"""File, and function or class in it -> why its real seconds stay."""


def test_no_test_waits_for_a_real_second() -> None:
    found = [
        place
        for path in sorted(TESTS.rglob("*.py"))
        if MEASURING not in path.parents
        for place in find_real_seconds(path.relative_to(TESTS), path.read_text())
    ]
    new = [str(place) for place in found if place.where not in ALLOWED]
    assert new == [], "take the fixture virtual_time, skip_seconds or eventually, or count; see docs/decisions/0011"
    assert ALLOWED.keys() - {place.where for place in found} == set(), "these wait for no real second any more"


@for_each("source, found", {
    "a sleep": ("def test_a():\n    time.sleep(2)", ["sleeps for 2 s"]),
    "a sleep by a constant": ("A, B = 1, 0.5\nasync def test_a():\n    await asyncio.sleep(B / 5)", ["sleeps for 0.1 s"]),
    "a turn of the loop": ("async def test_a():\n    await asyncio.sleep(0)", []),
    "a pace that its caller chooses": ("async def wait(seconds):\n    await asyncio.sleep(seconds)", []),
    "a limit": ("def test_a():\n    Client(answer_seconds=0.05)", ["answer_seconds is 0.05 s"]),
    "a limit that is long enough": ("def test_a():\n    Client(answer_seconds=60)", []),
    "a limit of a block": ("async def test_a():\n    async with asyncio.timeout(0.5): pass", ["timeout() has 0.5 s"]),
    "a limit of a call": ("async def test_a():\n    await asyncio.wait_for(ask(), 0.2)", ["wait_for() has 0.2 s"]),
    "elapsed time": ("def test_a():\n    assert time.monotonic() - began < 5", ["asserts how long something took"]),
    "processor time": ("def test_a():\n    assert time.process_time() - began < 5", []),
    "the fixture": ("async def test_a(virtual_time):\n    await asyncio.sleep(2)", []),
    "the fixture by name": ("@pytest.mark.usefixtures('virtual_time')\nasync def test_a():\n    await sleep(2)", []),
    "a simulation": ("def test_a():\n    async def b():\n        await sleep(2)\n    run_simulation(b())", []),
    "a part of a simulation": ("async def a():\n    assert isinstance(loop, SimulationLoop)\n    await sleep(2)", []),
    "a block of virtual time": ("async def test_a():\n    with virtual_time():\n        await sleep(2)", []),
})  # fmt: skip
def test_what_is_found_in_a_test(source: str, found: list[str]) -> None:
    assert [place.what for place in find_real_seconds(Path("test_a.py"), source)] == found
