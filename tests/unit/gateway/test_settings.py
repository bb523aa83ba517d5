"""The settings' file: what is refused and how, and what happens when the file changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1plus_gateway.settings import Capability, SettingsError, SettingsFile, parse_settings
from support.gateway.fake_embedder import EMBEDDING
from support.tables import for_each

MODEL = {"name": "credit", "host": "credit-pods", "contextTokens": 1024, "batch": 4}


def encode(**fields: Any) -> bytes:
    return json.dumps({"namespace": "team-credit", "models": [MODEL], **fields}).encode()


def test_what_is_left_out_has_a_default() -> None:
    settings = parse_settings(encode(models=[{**MODEL, "capabilities": ["messages"]}]))
    (model,) = settings.models
    assert (model.grpc_port, model.monitor_port, model.max_new_tokens) == (8001, 8080, 512)
    assert model.can(Capability.MESSAGES)
    assert not model.can(Capability.COUNT_ONLY)
    assert settings.limits.slow_reader_seconds == 30


@for_each("text, field", {
    "no JSON": (b"{", "GatewaySettings"),
    "no namespace": (b"{}", "GatewaySettings.namespace"),
    "a namespace that is none": (encode(namespace="Team Credit"), "namespace"),
    "an unknown field": (encode(colour="red"), "GatewaySettings.colour"),
    "a model without a host": (encode(models=[{**MODEL, "host": ""}]), "models[0].host"),
    "a model's name with a colon": (encode(models=[{**MODEL, "name": "a:code"}]), "models[0].name"),
    "a model twice": (encode(models=[MODEL, MODEL]), "models[1].name"),
    "port 0": (encode(models=[{**MODEL, "grpcPort": 0}]), "models[0].grpcPort"),
    "a port that is text": (encode(models=[{**MODEL, "grpcPort": "8001"}]), "GatewaySettings.models[0].grpcPort"),
    "no slots": (encode(models=[{**MODEL, "batch": 0}]), "models[0].batch"),
    "an audit log that is kept for no day": (encode(data={"auditDays": 0}), "data.auditDays"),
    "more new tokens than the context": (encode(models=[{**MODEL, "maxNewTokens": 1025}]), "models[0].maxNewTokens"),
    "an unknown capability": (encode(models=[{**MODEL, "capabilities": ["sing"]}]), "GatewaySettings.models[0].capabilities[0]"),
    "a limit of 0": (encode(limits={"bodyBytes": 0}), "limits.bodyBytes"),
    "an engine's name with a colon": (encode(embedding={**EMBEDDING, "name": "a:b"}), "embedding.name"),
    "a digest that is none": (encode(embedding={**EMBEDDING, "sha256": "5a"}), "embedding.sha256"),
    "no dimensions": (encode(embedding={**EMBEDDING, "dimensions": 0}), "embedding.dimensions"),
    "endless texts": (encode(embedding={**EMBEDDING, "mostTokens": 9000}), "embedding.mostTokens"),
    "more than a megabyte": (b" " * (2**20 + 1), "settings"),
})  # fmt: skip
def test_bad_settings_are_refused_by_field(text: bytes, field: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)
    assert str(caught.value).startswith(f"{field}:")
    assert ";" in str(caught.value), "no remedy"


def test_all_problems_are_listed() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(encode(namespace="", models=[{**MODEL, "batch": 0}]))
    assert "namespace:" in str(caught.value)
    assert "models[0].batch:" in str(caught.value)


class Mount:
    """A ConfigMap as a kubelet mounts it: the file is a link through `..data`, which changes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._version = 0
        self.path = folder / "settings.json"

    def write(self, text: bytes) -> None:
        """Show another version."""
        self._version += 1
        version = self._folder / f"..{self._version}"
        version.mkdir()
        (version / "settings.json").write_bytes(text)
        link = self._folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._folder / "..data")
        if not self.path.is_symlink():
            self.path.symlink_to("..data/settings.json")


def test_a_change_is_read_and_reported_to_subscribers(tmp_path: Path) -> None:
    mount = Mount(tmp_path)
    mount.write(encode())
    file = SettingsFile(mount.path)
    seen: list[int] = []
    file.subscribe(lambda settings: seen.append(len(settings.models)))
    file.refresh()
    assert seen == []
    mount.write(encode(models=[]))
    file.refresh()
    assert (seen, file.current.models) == ([0], ())


@for_each("text", {"no JSON": b"{", "a bad value": encode(limits={"bodyBytes": 0})})
def test_a_bad_file_keeps_the_last_good_one(tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount(tmp_path)
    mount.write(encode())
    validity: list[bool] = []
    file = SettingsFile(mount.path, validity.append)
    mount.write(text)
    file.refresh()
    file.refresh()
    assert len(file.current.models) == 1
    assert caplog.text.count("last good ones stay") == 1
    mount.write(encode())
    file.refresh()
    assert validity == [True, False, True]


def test_a_file_that_vanishes_keeps_the_last_good_one(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(encode())
    validity: list[bool] = []
    file = SettingsFile(path, validity.append)
    path.unlink()
    file.refresh()
    assert len(file.current.models) == 1
    assert validity == [True, False]


def test_without_a_file_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="mount the ConfigMap"):
        SettingsFile(tmp_path / "settings.json")
