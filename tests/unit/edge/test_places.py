"""Where paths and ports of a pod are on this machine: in commands, in scripts, in settings."""

import subprocess
from pathlib import Path

import pytest

from r1plus_contract import names
from r1plus_edge.pods.places import PodPlaces
from r1plus_operator.plan.podspec.pod import build_readiness_script

POD = Path("/home/maria/pods/edge-1")
PLACES = PodPlaces(
    {
        names.DIR_DELIVERY: POD / "delivery",
        names.DIR_ENGINE: POD / "engine",
        names.DIR_ADMISSION: POD / "admission",
        "/tmp": POD / "tmp",
    },
    {8000: 41000, 8001: 41001},
)
CASES = {
    "a path below a mount": ("/delivery/models", f"{POD}/delivery/models"),
    "a mount inside another one": ("/delivery/engine", f"{POD}/engine"),
    "an option's value": ("--model-repository=/delivery/models", f"--model-repository={POD}/delivery/models"),
    "a path that only begins alike": ("/delivery-old/models", "/delivery-old/models"),
    "a path that only ends alike": ("/opt/delivery/models", "/opt/delivery/models"),
    "an option's port": ("--http-port=8000", "--http-port=41000"),
    "a port of an address": ("/dev/tcp/127.0.0.1/8001", "/dev/tcp/127.0.0.1/41001"),
    "a number that only begins with a port": ("--limit=80001", "--limit=80001"),
    "a number that is no port": ("wait 8000 times", "wait 8000 times"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_paths_and_ports_of_the_pod_become_those_of_this_machine(text: str, expected: str) -> None:
    assert PLACES.translate(text) == expected


def test_a_folder_whose_name_looks_like_a_port_stays_as_it_is() -> None:
    places = PodPlaces({"/delivery": Path("/data/8000/pod")}, {8000: 41000})
    assert places.translate("--model-repository=/delivery/models") == "--model-repository=/data/8000/pod/models"


def test_a_script_gets_quoted_paths_and_other_words_get_them_as_they_are() -> None:
    places = PodPlaces({"/delivery": Path("/home/maria garcia/pod")}, {})
    command = places.translate_command(["/bin/bash", "-ec", "echo /delivery/x", "/delivery"])
    assert command[2:] == ["echo '/home/maria garcia/pod'/x", "/home/maria garcia/pod"]
    assert subprocess.check_output(command[:3], text=True) == "/home/maria garcia/pod/x\n"


def test_a_document_is_translated_through_and_through() -> None:
    document = {"data": {"folder": "/delivery"}, "models": [{"path": "/tmp/a", "batch": 8000, "tls": None}]}
    assert PLACES.translate_document(document) == {
        "data": {"folder": f"{POD}/delivery"},
        "models": [{"path": f"{POD}/tmp/a", "batch": 8000, "tls": None}],
    }


def test_the_readiness_script_of_the_plan_asks_this_machines_token_and_port(tmp_path: Path) -> None:
    places = PodPlaces({names.DIR_ADMISSION: tmp_path}, {names.PORT_HTTP: 1})
    command = places.translate_command(["/bin/bash", "-c", build_readiness_script()])
    environment = {"PATH": "/usr/bin:/bin", names.ENV_IDENTITY: "1d"}
    refusal = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refusal.stdout == "no admission token for this identity: the gate has not passed\n"
    (tmp_path / "token").write_text("1d\n{}\n")
    admitted = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert admitted.returncode == 1  # Nobody listens on port 1.
    assert "no admission token" not in admitted.stdout
