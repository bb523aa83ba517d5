"""From the `Authorization` header to a caller, and what is said to whoever is refused."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from r1plus_gateway.access.api_keys import ApiKey, KeyRecord, mint_key
from r1plus_gateway.access.authenticator import REFUSAL, CredentialAuthenticator
from r1plus_gateway.access.caller import AccessError, Caller, Limits
from r1plus_gateway.access.service_accounts import JwksFile, TokenVerifier
from r1plus_gateway.store.administration import key_lookups
from r1plus_gateway.store.administration.admin import create_key, revoke_key
from r1plus_gateway.store.administration.key_lookups import MOST_UNKNOWN_KEYS
from r1plus_gateway.store.administration.key_records import KeySpec, find_record
from r1plus_gateway.store.database.readers import MOST_READS
from r1plus_gateway.store.errors import BusyError
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.tenant_data import ADMIN, Volume

pytestmark = pytest.mark.first_run_counts


@pytest.fixture
def authenticator(store: TenantStore, tmp_path: Path) -> CredentialAuthenticator:
    tokens = TokenVerifier(JwksFile(tmp_path / "jwks.json"), "issuer", "team-credit", lambda _: None)
    return CredentialAuthenticator(store, tokens, store.clock.read)


async def test_a_key_of_the_store_authenticates(store: TenantStore, authenticator: CredentialAuthenticator) -> None:
    issued = await create_key(store, ADMIN, KeySpec("ci", frozenset({"credit"}), limits=Limits(budget_tokens=7)))
    for scheme in ("Bearer", "bearer", "BEARER"):
        caller = await authenticator.authenticate(f"{scheme} {issued.key.encode()}", "")
        assert caller == issued.record.caller


REFUSED: dict[str, Callable[[ApiKey], str]] = {
    "nothing": lambda key: "",
    "only the scheme": lambda key: "Bearer",
    "only the key": lambda key: key.encode(),
    "another scheme": lambda key: f"Basic {key.encode()}",
    "two spaces": lambda key: f"Bearer  {key.encode()}",
    "something behind it": lambda key: f"Bearer {key.encode()} x",
    "an unknown key": lambda key: f"Bearer {mint_key().encode()}",
    "another secret": lambda key: f"Bearer {mint_key(key.id).encode()}",
    "a token of nobody": lambda key: "Bearer a.b.c",
    "a key with dots": lambda key: "Bearer r1p_a.b.c",
    "an id of another case": lambda key: f"Bearer {ApiKey(key.id.swapcase(), key.secret).encode()}",
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
async def test_whoever_is_refused_learns_nothing(
    store: TenantStore, authenticator: CredentialAuthenticator, make: Callable[[ApiKey], str]
) -> None:
    issued = await create_key(store, ADMIN, KeySpec("ci"))
    with pytest.raises(AccessError) as refusal:
        await authenticator.authenticate(make(issued.key), "")
    assert (refusal.value.status, refusal.value.code, str(refusal.value)) == (401, "invalid_api_key", REFUSAL)
    assert refusal.value.retry_after is None


async def test_a_revoked_key_is_refused_at_once(store: TenantStore, authenticator: CredentialAuthenticator) -> None:
    issued = await create_key(store, ADMIN, KeySpec("ci"))
    await authenticator.authenticate(f"Bearer {issued.key.encode()}", "")
    await revoke_key(store, ADMIN, issued.key.id)
    with pytest.raises(AccessError, match="revoked"):
        await authenticator.authenticate(f"Bearer {issued.key.encode()}", "")


async def test_a_clock_that_goes_back_revives_no_expired_key(
    volume: Volume, store: TenantStore, authenticator: CredentialAuthenticator
) -> None:
    issued = await create_key(store, ADMIN, KeySpec("ci", expires_at=volume.time.wall + 60))
    volume.time.advance(61)
    volume.time.wall -= 3600
    with pytest.raises(AccessError, match="expired"):
        await authenticator.authenticate(f"Bearer {issued.key.encode()}", "")


async def test_a_key_with_the_scope_names_end_users(store: TenantStore, authenticator: CredentialAuthenticator) -> None:
    issued = await create_key(store, ADMIN, KeySpec("app", scopes=frozenset({"end-users"})))
    authorization = f"Bearer {issued.key.encode()}"
    assert (await authenticator.authenticate(authorization, "ann@bank.example")).end_user == "ann@bank.example"
    assert (await authenticator.authenticate(authorization, "")).end_user == ""
    for end_user in ("a" * 257, "ä" * 129, "a\nb", "a\0"):
        with pytest.raises(AccessError, match="control characters") as refusal:
            await authenticator.authenticate(authorization, end_user)
        assert refusal.value.status == 403


async def test_a_key_without_the_scope_names_nobody(store: TenantStore, authenticator: CredentialAuthenticator) -> None:
    issued = await create_key(store, ADMIN, KeySpec("app"))
    with pytest.raises(AccessError, match=r"may not name end users.*scope end-users") as refusal:
        await authenticator.authenticate(f"Bearer {issued.key.encode()}", "ann")
    assert (refusal.value.status, refusal.value.code) == (403, "end_user_not_allowed")


async def test_a_flood_of_forged_keys_is_refused_at_once_and_keeps_out_no_key_that_has_called(
    store: TenantStore, authenticator: CredentialAuthenticator
) -> None:
    known, new = [(await create_key(store, ADMIN, KeySpec(name))).key.encode() for name in ("known", "new")]
    await authenticator.authenticate(f"Bearer {known}", "")
    forged = [authenticator.authenticate(f"Bearer {mint_key().encode()}", "") for _ in range(MOST_UNKNOWN_KEYS + 50)]
    own = [authenticator.authenticate(f"Bearer {known}", "") for _ in range(50)]
    ends = await asyncio.gather(*forged, *own, return_exceptions=True)
    statuses = [end.status for end in ends if isinstance(end, AccessError)]
    assert (statuses.count(401), statuses.count(503)) == (MOST_UNKNOWN_KEYS, 50)
    assert len([end for end in ends if isinstance(end, Caller)]) == 50
    callers = await asyncio.gather(*(authenticator.authenticate(f"Bearer {new}", "") for _ in range(300)))
    assert len(callers) == 300, "many requests of one new key count once"


async def test_a_flood_of_malformed_keys_keeps_out_no_key(
    store: TenantStore, authenticator: CredentialAuthenticator
) -> None:
    known, new = [(await create_key(store, ADMIN, KeySpec(name))).key.encode() for name in ("known", "new")]
    await authenticator.authenticate(f"Bearer {known}", "")
    flood = [authenticator.authenticate("Bearer nonsense", "") for _ in range(MOST_READS + 100)]
    own = [authenticator.authenticate(f"Bearer {key}", "") for key in (known, new)]
    *refusals, first, second = await asyncio.gather(*flood, *own, return_exceptions=True)
    assert {end.status for end in refusals if isinstance(end, AccessError)} == {401}
    assert isinstance(first, Caller)
    assert isinstance(second, Caller)


async def test_more_reads_than_can_wait_are_refused(store: TenantStore) -> None:
    reads = (store.read(lambda connection: find_record(connection, "x")) for _ in range(MOST_READS + 50))
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert len([end for end in ends if isinstance(end, BusyError)]) == 50


async def test_a_look_up_that_reads_already_is_not_shared(store: TenantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that comes after a revocation never gets what was read before it."""
    issued = await create_key(store, ADMIN, KeySpec("ci"))
    has_read, may_end = threading.Event(), threading.Event()

    def find(connection: Connection, key_id: str) -> KeyRecord | None:
        record = find_record(connection, key_id)
        if not has_read.is_set():
            has_read.set()
            may_end.wait(60)
        return record

    monkeypatch.setattr(key_lookups, "find_record", find)
    first = asyncio.create_task(store.find_key(issued.record.id))
    await asyncio.to_thread(has_read.wait, 60)
    await revoke_key(store, ADMIN, issued.record.id)
    second = await store.find_key(issued.record.id)
    may_end.set()
    record = await first
    assert record is not None
    assert second is not None
    assert (record.revoked_at is None, second.revoked_at is None) == (True, False)


async def test_a_store_that_is_not_open_answers_503_to_every_key(volume: Volume, tmp_path: Path) -> None:
    closed = volume.make_store()
    tokens = TokenVerifier(JwksFile(tmp_path / "jwks.json"), "issuer", "team-credit", lambda _: None)
    for text in (mint_key().encode(), "nonsense"):
        with pytest.raises(AccessError, match="GatewayReady") as refusal:
            await CredentialAuthenticator(closed, tokens).authenticate(f"Bearer {text}", "")
        assert (refusal.value.status, refusal.value.code) == (503, "data_unavailable")
    await closed.close()
