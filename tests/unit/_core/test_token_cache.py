from __future__ import annotations

from factorychain._core.token_cache import TokenCache, digest_of


def test_a_result_is_found_until_it_expires() -> None:
    cache: TokenCache[str] = TokenCache(4)
    cache.put(digest_of("a"), "A", 10.0, 0.0, None)
    assert cache.get(digest_of("a"), 9.9, None) == "A"
    assert cache.get(digest_of("a"), 10.0, None) is None
    assert len(cache) == 0


def test_other_keys_forget_everything() -> None:
    cache: TokenCache[str] = TokenCache(4)
    cache.put(digest_of("a"), "A", 10.0, 0.0, 1)
    assert cache.get(digest_of("a"), 0.0, 2) is None
    assert cache.get(digest_of("a"), 0.0, 1) is None


def test_the_oldest_result_makes_room() -> None:
    cache: TokenCache[str] = TokenCache(2)
    for name in "abc":
        cache.put(digest_of(name), name.upper(), 10.0, 0.0, None)
    assert [cache.get(digest_of(name), 0.0, None) for name in "abc"] == [None, "B", "C"]


def test_what_has_expired_goes_when_something_is_added() -> None:
    cache: TokenCache[str] = TokenCache(100)
    for at_s in range(10):
        cache.put(digest_of(str(at_s)), str(at_s), at_s + 1.0, float(at_s), None)
    assert len(cache) == 1


def test_a_text_that_is_no_utf8_is_only_unknown() -> None:
    cache: TokenCache[str] = TokenCache(2)
    assert cache.get(digest_of("\ud800"), 0.0, None) is None
