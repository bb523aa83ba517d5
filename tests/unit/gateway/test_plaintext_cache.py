"""The cache of what was decrypted: bounded, each owner's own, and never of what was removed meanwhile."""

import pytest

from r1plus_gateway.store.content.plaintext_cache import IDLE_SECONDS, PlaintextCache
from r1plus_gateway.store.keys.content_cipher import Owner

ANNA, BERT = Owner("key", "k1", "anna"), Owner("key", "k1", "bert")


class Seconds:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cache() -> PlaintextCache:
    return PlaintextCache(most_bytes=100)


def put(cache: PlaintextCache, owner: Owner, name: str, size: int = 10) -> bool:
    return cache.put(owner, name, f"{owner.end_user} {name}", None, size, cache.begin(owner))


def test_an_entry_is_found_by_its_owner_alone(cache: PlaintextCache) -> None:
    put(cache, ANNA, "conv_1")
    assert cache.get(ANNA, "conv_1") == "anna conv_1"
    assert cache.get(BERT, "conv_1") is None
    assert cache.get(Owner("token", "k1", "anna"), "conv_1") is None
    assert cache.get(ANNA, "conv_2") is None


def test_the_one_that_was_not_used_for_longest_goes_first(cache: PlaintextCache) -> None:
    for name in ("a", "b", "c"):
        put(cache, ANNA, name, 40 if name != "c" else 20)
    cache.get(ANNA, "a")
    put(cache, BERT, "d", 30)
    assert [cache.get(ANNA, name) is not None for name in ("a", "b", "c")] == [True, False, True]
    assert (len(cache), cache.size) == (3, 90)


def test_no_entry_may_take_more_than_half(cache: PlaintextCache) -> None:
    put(cache, ANNA, "a", 10)
    assert not put(cache, BERT, "b", 51)
    assert not put(cache, ANNA, "a", 51), "what has grown too large is not kept as it was"
    assert (len(cache), cache.size) == (0, 0)


def test_an_entry_takes_the_place_of_its_former_name(cache: PlaintextCache) -> None:
    put(cache, ANNA, "resp_1")
    cache.put(ANNA, "resp_2", "more", None, 20, cache.begin(ANNA), instead_of="resp_1")
    assert (cache.get(ANNA, "resp_1"), cache.get(ANNA, "resp_2"), cache.size) == (None, "more", 20)


@pytest.mark.parametrize("remove", [
    lambda cache: cache.forget(ANNA, "conv_1"),
    lambda cache: cache.forget_owner(ANNA),
    lambda cache: cache.clear(),
], ids=["the entry is forgotten", "its owner is", "all are"])  # fmt: skip
def test_what_was_read_before_a_removal_is_not_kept_after_it(remove, cache: PlaintextCache) -> None:  # type: ignore[no-untyped-def]
    put(cache, ANNA, "conv_1")
    begun = cache.begin(ANNA)
    remove(cache)
    assert cache.get(ANNA, "conv_1") is None
    assert not cache.put(ANNA, "conv_1", "deleted", None, 10, begun)
    assert (len(cache), cache.size) == (0, 0)
    assert put(cache, ANNA, "conv_1"), "what is read later is kept"


def test_what_nobody_uses_goes() -> None:
    clock = Seconds()
    cache = PlaintextCache(100, clock)
    put(cache, ANNA, "a")
    put(cache, ANNA, "b")
    clock.now += IDLE_SECONDS
    cache.get(ANNA, "b")
    clock.now += 1
    cache.drop_idle()
    assert (cache.get(ANNA, "a"), cache.size) == (None, 10)
    assert cache.get(ANNA, "b") is not None
