"""API keys: their form, what is stored of them, which are valid, and that no secret shows."""

import hashlib
import hmac
import logging
import traceback
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_gateway.access.api_keys import (
    KEY_LENGTH,
    ApiKey,
    KeyRecord,
    compute_secret_mac,
    mint_key,
    parse_key,
    verify_key,
)
from r1plus_gateway.access.caller import CallerKind, Limits

pytestmark = pytest.mark.first_run_counts

NOW = 1_800_000_000.0


@dataclass
class Records:
    """Stands for the store, and counts what it is asked."""

    records: dict[str, KeyRecord] = field(default_factory=dict)
    lookups: list[str] = field(default_factory=list)
    macs: int = 0

    async def find_key(self, key_id: str) -> KeyRecord | None:
        self.lookups.append(key_id)
        return self.records.get(key_id)

    def compute_key_mac(self, message: bytes) -> bytes:
        self.macs += 1
        return hmac.digest(b"pepper", message, hashlib.sha256)

    def add(self, key: ApiKey, **changes: object) -> KeyRecord:
        record = KeyRecord(
            key.id, "ci", compute_secret_mac(key, self.compute_key_mac), None, None, None, frozenset(), Limits(), NOW, None, None
        )  # fmt: skip
        self.records[key.id] = replace(record, **changes)  # type: ignore[arg-type]
        return self.records[key.id]


def test_a_key_has_its_form_and_reads_back() -> None:
    key = mint_key()
    text = key.encode()
    assert len(text) == KEY_LENGTH == 67
    assert text.isascii()
    assert text.startswith(f"r1p_{key.id}_")
    assert parse_key(text) == key
    assert mint_key().encode() != text
    assert mint_key(key.id).id == key.id


KEY = ApiKey("A" * 12, "b" * 43).encode()
MALFORMED = {
    "nothing": "",
    "another prefix": "sk-" + KEY[3:],
    "upper case prefix": KEY.replace("r1p", "R1P"),
    "a character short": KEY[:-1],
    "a character long": KEY + "0",
    "a newline behind it": KEY[:-1] + "\n",
    "a newline more": KEY + "\n",
    "space before it": " " + KEY[:-1],
    "a wrong checksum": KEY[:-1] + ("0" if KEY[-1] != "0" else "1"),
    "a secret that was mistyped": KEY.replace("b", "c", 1),
    "an id that was mistyped": KEY.replace("A", "B", 1),
    "SQL in the id": KEY.replace("A" * 12, "' OR 1=1 -- "),
    "look-alike letters": KEY.replace("A", "А", 1),  # Cyrillic
    "wide digits": KEY[:-1] + "０",
    "NUL": KEY[:-1] + "\0",
    "a lone surrogate": KEY[:-1] + "\ud800",
    "a megabyte": "r1p_" + "A" * 2**20,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_not_exactly_a_key_is_refused_by_the_steps_of_an_unknown_one(text: str) -> None:
    finder = Records()
    assert parse_key(text) is None
    assert await verify_key(text, finder, NOW) is None
    assert (len(finder.lookups), finder.macs) == (1, 1)
    assert set(finder.lookups[0]) == {"0"}


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    assert parse_key(text) is None


async def test_the_record_of_a_valid_key_says_who_calls() -> None:
    finder, key = Records(), mint_key()
    finder.add(key, models=frozenset({"credit"}), limits=Limits(budget_tokens=5), scopes=frozenset({"end-users"}))
    record = await verify_key(key.encode(), finder, NOW)
    assert record is not None
    caller = record.caller
    assert (caller.kind, caller.id, caller.models) == (CallerKind.API_KEY, key.id, frozenset({"credit"}))
    assert (caller.limits, caller.scopes) == (Limits(budget_tokens=5), frozenset({"end-users"}))


INVALID: dict[str, dict[str, object]] = {
    "expired": {"expires_at": NOW},
    "revoked": {"revoked_at": NOW - 1},
    "revoked, by a clock that was ahead": {"revoked_at": NOW + 1000},
    "of another secret": {"secret_mac": bytes(32)},
}


@pytest.mark.parametrize("changes", INVALID.values(), ids=INVALID)
async def test_a_key_that_is_no_longer_valid_takes_the_same_steps(changes: dict[str, object]) -> None:
    finder, key = Records(), mint_key()
    finder.add(key, **changes)
    finder.macs = 0
    assert await verify_key(key.encode(), finder, NOW) is None
    assert (finder.lookups, finder.macs) == ([key.id], 1)


async def test_an_expiry_in_the_future_is_not_one_yet() -> None:
    finder, key = Records(), mint_key()
    finder.add(key, expires_at=NOW + 1)
    assert await verify_key(key.encode(), finder, NOW) is not None


async def test_of_a_rotated_key_both_secrets_are_valid_until_the_old_one_ends() -> None:
    finder, old = Records(), mint_key()
    new = mint_key(old.id)
    previous = compute_secret_mac(old, finder.compute_key_mac)
    finder.add(new, previous_mac=previous, previous_expires_at=NOW + 60)
    for moment, valid in ((NOW, True), (NOW + 59, True), (NOW + 60, False)):
        assert (await verify_key(old.encode(), finder, moment) is not None) == valid
        assert await verify_key(new.encode(), finder, moment) is not None


async def test_a_secret_is_bound_to_its_id() -> None:
    finder, key, other = Records(), mint_key(), mint_key()
    finder.add(key)
    finder.records[other.id] = replace(finder.records[key.id], id=other.id)
    assert await verify_key(key.encode(), finder, NOW) is not None
    assert await verify_key(ApiKey(other.id, key.secret).encode(), finder, NOW) is None
    assert finder.lookups == [key.id, other.id]


async def test_no_representation_log_or_error_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    finder, key = Records(), mint_key()
    record = finder.add(key)
    logging.getLogger("any").warning("Key %s, record %r", key, record)

    class Broken(Records):
        async def find_key(self, key_id: str) -> KeyRecord | None:
            raise RuntimeError(f"no record of {key_id}")

    with pytest.raises(RuntimeError) as failure:
        await verify_key(key.encode(), Broken(), NOW)
    shown = repr(key) + str(key) + repr(record) + caplog.text + "".join(traceback.format_exception(failure.value))
    assert key.id in shown
    assert key.secret not in shown
    assert record.secret_mac.hex() not in shown
    assert repr(record.secret_mac) not in shown
