"""The tenant key: two halves, what each opens alone (nothing), rotation of the Secret's half, and its loss."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.store.administration.admin import create_key, verify_audit
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.database.opening import open_data
from r1plus_gateway.store.errors import ConfigError, CorruptError, DataReason, KeyLostError, StoreError, WrongKeyError
from r1plus_gateway.store.keys.tenant_keys import (
    TenantKeys,
    add_pending_root,
    create_ring,
    decode_ring,
    find_roots,
    make_half,
    open_ring,
    promote_pending_root,
    read_halves,
    read_ring,
)
from support.gateway.tenant_data import ADMIN, TENANT_UID, Volume

HALVES = {"half-1": bytes(range(32))}
OTHER = {"half-1": bytes(32)}


def make_keys() -> TenantKeys:
    ring = create_ring(TENANT_UID, HALVES)
    return open_ring(ring, TENANT_UID, HALVES)[0]


def test_the_keys_differ_from_each_other_and_from_those_of_any_other_tenant() -> None:
    names = [name for name in TenantKeys.__slots__ if name != "former_wrapping_key"]
    keys = [getattr(made, name) for made in (make_keys(), make_keys()) for name in names]
    assert len(keys) == 18
    for one, other in itertools.combinations(keys, 2):
        assert not one.startswith(other[:16])


def test_the_ring_opens_to_the_same_keys_each_time() -> None:
    ring = create_ring(TENANT_UID, HALVES)
    again = decode_ring(ring.encode(), "test")
    assert again == ring
    assert open_ring(again, TENANT_UID, HALVES) == (open_ring(ring, TENANT_UID, HALVES)[0], ring)


def test_neither_half_alone_opens_the_ring() -> None:
    ring = create_ring(TENANT_UID, HALVES)
    for one, halves in ((ring, OTHER), (replace(ring, volume_half=bytes(32)), HALVES)):
        with pytest.raises(WrongKeyError, match="recovery export"):
            open_ring(one, TENANT_UID, halves)


def test_a_wrap_that_was_moved_to_another_ring_does_not_open() -> None:
    ring, other = (create_ring(TENANT_UID, HALVES) for _ in range(2))
    (pair,) = other.wraps
    forged = replace(other, wraps={pair: next(iter(ring.wraps.values()))})
    with pytest.raises(WrongKeyError):
        open_ring(forged, TENANT_UID, HALVES)


def test_a_ring_with_a_pending_root_opens_to_both_and_an_older_gateway_refuses_it() -> None:
    ring = create_ring(TENANT_UID, HALVES)
    pending = add_pending_root(ring, HALVES)
    (root,), both = find_roots(ring, HALVES), find_roots(pending, HALVES)
    assert both[0] == root != both[1]
    assert decode_ring(pending.encode(), "test") == pending
    assert [json.loads(one.encode())["format"] for one in (ring, pending)] == [1, 2]
    promoted = promote_pending_root(pending)
    assert find_roots(promoted, HALVES) == (both[1],)
    assert json.loads(promoted.encode())["format"] == 1
    assert find_roots(pending, OTHER) == ()


def test_both_roots_are_wrapped_for_the_halves_of_now() -> None:
    two = {**HALVES, "half-2": bytes(32)}
    pending = add_pending_root(create_ring(TENANT_UID, HALVES), HALVES)
    both = find_roots(pending, HALVES)
    _, renewed = open_ring(pending, TENANT_UID, two)
    _, renewed = open_ring(renewed, TENANT_UID, OTHER | {"half-2": bytes(32)})
    assert find_roots(renewed, {"half-2": bytes(32)}) == both
    assert find_roots(renewed, HALVES) == ()


def test_no_representation_shows_a_key() -> None:
    ring = add_pending_root(create_ring(TENANT_UID, HALVES), HALVES)
    keys, _ = open_ring(ring, TENANT_UID, HALVES)
    shown = repr(keys) + repr(ring)
    wraps = [*ring.wraps.values(), *ring.pending.values()]
    opened = [getattr(keys, name) for name in keys.__slots__ if getattr(keys, name)]
    assert len(opened) > 1
    assert len(wraps) == 2
    assert TENANT_UID in shown
    for secret in [*opened, ring.volume_half, *wraps]:
        assert repr(secret) not in shown
        assert secret.hex() not in shown


def write_halves(volume: Volume, **halves: str) -> None:
    """Make the Secret's folder hold exactly these."""
    shutil.rmtree(volume.config.secret_folder)
    volume.make(*[])
    for path in volume.config.secret_folder.iterdir():
        path.unlink()
    for name, half in halves.items():
        (volume.config.secret_folder / name.replace("_", "-")).write_text(half + "\n")


async def test_the_secrets_half_is_rotated_while_two_are_valid(volume: Volume) -> None:
    old, new = make_half(), make_half()
    write_halves(volume, half_1=old)
    async with volume.open() as store:
        issued = await create_key(store, ADMIN, KeySpec("ci"))
        write_halves(volume, half_1=old, half_2=new)
        await store.maintain()  # The gateway runs on meanwhile.
        assert store.state.is_ready
        ring = read_ring(volume.ring)
        assert ring is not None and len(ring.wraps) == 2
        write_halves(volume, half_2=new)
        await store.maintain()
        ring = read_ring(volume.ring)
        assert ring is not None and len(ring.wraps) == 1
    async with volume.open() as store:
        assert await verify_key(issued.key.encode(), store, store.clock.read()) is not None
        assert (await verify_audit(store)).problem == ""
    write_halves(volume, half_1=old)
    assert await read_reason(volume) is DataReason.WRONG_KEY


async def test_a_half_that_was_rotated_while_no_gateway_ran_needs_both_at_the_next_start(volume: Volume) -> None:
    old, new = make_half(), make_half()
    write_halves(volume, half_1=old)
    async with volume.open():
        pass
    write_halves(volume, half_2=new)
    assert await read_reason(volume) is DataReason.WRONG_KEY
    write_halves(volume, half_1=old, half_2=new)
    async with volume.open():
        pass
    write_halves(volume, half_2=new)
    async with volume.open():
        pass


async def read_reason(volume: Volume) -> DataReason:
    """Return why the data of the volume cannot be opened."""
    store = volume.make_store()
    assert not await store.open()
    await store.close()
    return store.state.reason


def lose_secret(volume: Volume) -> None:
    shutil.rmtree(volume.config.secret_folder)


def empty_secret(volume: Volume) -> None:
    write_halves(volume)


def lose_ring(volume: Volume) -> None:
    volume.ring.unlink()


LOST = {
    "the Secret is not mounted": (lose_secret, r"half-?.*r1plus tenant init --from"),
    "the Secret is empty": (empty_secret, r"Secret r1plus-gateway-key is\s+missing or empty"),
    "the ring is gone from the volume": (lose_ring, "key-ring.json is missing, so tenant.db beside it cannot be read"),
}


@pytest.mark.parametrize(("lose", "message"), LOST.values(), ids=LOST)
async def test_a_lost_half_is_a_state_with_the_remedy_and_nothing_is_made_anew(
    volume: Volume, lose: Callable[[Volume], None], message: str
) -> None:
    async with volume.open():
        pass
    half = (volume.config.secret_folder / "half-1").read_text()
    ring, database = volume.ring.read_bytes(), volume.database.read_bytes()
    lose(volume)
    with pytest.raises(KeyLostError, match=message):
        open_data(volume.config)
    assert await read_reason(volume) is DataReason.KEY_LOST
    assert volume.database.read_bytes() == database
    assert not volume.ring.exists() or volume.ring.read_bytes() == ring
    write_halves(volume.make(), half_1=half)
    volume.ring.write_bytes(ring)
    async with volume.open():
        pass


async def test_a_half_that_is_lost_while_the_gateway_runs_is_told_and_stops_nothing(volume: Volume) -> None:
    async with volume.open() as store:
        half = (volume.config.secret_folder / "half-1").read_text()
        for lose, reason in ((empty_secret, DataReason.KEY_LOST), (replace_half, DataReason.WRONG_KEY)):
            lose(volume)
            await store.maintain()
            await create_key(store, ADMIN, KeySpec("ci"))
            assert store.state.reason is reason
            assert "runs on with the key that it has, and could not start again" in store.state.message
        write_halves(volume, half_1=half)
        await store.maintain()
        assert store.state.is_ready


def replace_half(volume: Volume) -> None:
    write_halves(volume, half_1=make_half())


BAD_HALVES = {
    "empty": "",
    "short": "ab" * 31,
    "long": "ab" * 33,
    "no hexadecimal digits": "xy" * 32,
    "not ASCII": "ä" * 64,
}


@pytest.mark.parametrize("text", BAD_HALVES.values(), ids=BAD_HALVES)
def test_a_half_that_is_none_is_named_without_its_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "half-1").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="half-1: is not 64 hexadecimal digits") as failure:
        read_halves(tmp_path)
    assert not text or text not in str(failure.value)


def test_at_most_two_halves_are_valid(tmp_path: Path) -> None:
    for name in ("half-1", "half-2", "half-3"):
        (tmp_path / name).write_text(make_half())
    with pytest.raises(ConfigError, match="has 3 halves"):
        read_halves(tmp_path)


BAD_RINGS = {
    "empty": "",
    "half of it": '{"format": 1, "tenant": "a",',
    "a list": "[]",
    "of another format": json.dumps({"format": 2}),
    "without wraps": json.dumps({"format": 1, "tenant": TENANT_UID, "half": "AA=="}),
    "wraps that are a list": json.dumps({"format": 1, "tenant": "a", "half": "AA==", "wraps": [], "hasDatabase": True}),
    "no base64": json.dumps({"format": 1, "tenant": "a", "half": "%", "wraps": {}, "hasDatabase": True}),
    "with a pending root that is missing": json.dumps(
        {"format": 2, "tenant": "a", "half": "AA==", "wraps": {}, "hasDatabase": True}
    ),
    "deep JSON": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD_RINGS.values(), ids=BAD_RINGS)
async def test_a_damaged_ring_is_a_damaged_volume(volume: Volume, text: str) -> None:
    async with volume.open():
        pass
    volume.ring.write_text(text)
    with pytest.raises(CorruptError, match=r"key-ring.json: is not a key ring.*backup"):
        open_data(volume.config)


async def test_a_ring_that_is_no_text_is_a_damaged_volume(volume: Volume) -> None:
    volume.ring.write_bytes(b"\xff\xfe")
    assert await read_reason(volume) is DataReason.CORRUPT


def test_each_error_has_a_reason_of_its_own() -> None:
    def collect(kind: type[StoreError]) -> list[type[StoreError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in collect(child))]

    shared = ("StoreError", "BusyError")  # as UnavailableError
    kinds = [kind for kind in collect(StoreError) if kind.__name__ not in shared]
    assert len({kind.reason for kind in kinds}) == len(kinds)
    assert {kind.reason for kind in kinds} | {DataReason.READY, DataReason.STARTING, DataReason.CLOCK_AHEAD} == set(
        DataReason
    )
