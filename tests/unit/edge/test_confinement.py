"""What a machine refuses of the helpers' confinement: `serve status` says so, and what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_edge.pods.confinement import find_refusals

pytestmark = pytest.mark.first_run_counts

REFUSING = """
import ctypes, json, struct, sys
from pathlib import Path
from r1plus_edge.pods.confinement import find_refusals

LIBC = ctypes.CDLL(None, use_errno=True)
# What a container runtime or an older kernel does: a filter refuses these calls with these errors.
REFUSED = json.loads(sys.argv[2])
steps = [(0x20, 0, 0, 0)]
for number, error in REFUSED:
    steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error)]
steps.append((0x06, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
about = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
assert LIBC.prctl(38, 1, 0, 0, 0) == 0
assert LIBC.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(about)), 0, 0) == 0
print(json.dumps(find_refusals(Path(sys.argv[1]))))
"""
LANDLOCK, UNSHARE, PRCTL = [444, 38], [272, 1], [157, 22]
"""Numbers of x86_64's calls, with ENOSYS, EPERM and EINVAL."""
REFUSALS = {
    "nothing": ([], ()),
    "Landlock": ([LANDLOCK], ("files: Function not implemented; Landlock is refused, so they can read what you can",)),
    "user namespaces": ([UNSHARE], ("network: Operation not permitted; a network namespace of their own is refused",)),
    "filters": (
        [PRCTL],
        ("files: ", "sockets: Invalid argument; filters of system calls are refused, without which they end at once"),
    ),
    "both": ([UNSHARE, LANDLOCK], ("network: ", "files: ")),
}


@pytest.mark.parametrize(("refused", "begins"), REFUSALS.values(), ids=REFUSALS)
def test_what_the_machine_refuses_is_named_with_its_remedy(
    tmp_path: Path, refused: list[list[int]], begins: tuple[str, ...]
) -> None:
    said = subprocess.check_output([sys.executable, "-c", REFUSING, str(tmp_path), json.dumps(refused)], text=True)
    refusals = json.loads(said)
    assert [one.startswith(begin) for one, begin in zip(refusals, begins, strict=True)] == [True] * len(begins)


def test_where_nothing_can_be_tried_it_serves_all_the_same(tmp_path: Path) -> None:
    (refusal,) = find_refusals(tmp_path, str(tmp_path / "no-program"))
    assert "No such file or directory; the first lines of a helper's log say it" in refusal
