"""The proxies of docker's config become build arguments."""

from __future__ import annotations

from cogkit.building.proxies import with_proxies

PROXIES = {
    "default": {
        "httpProxy": "http://p:1",
        "httpsProxy": "http://p:2",
        "noProxy": "localhost",
        "ftpProxy": "",
        "x": "y",
    },
    "tcp://other:1": {"HttpProxy": "http://other:1"},
}


def test_the_default_counts_for_every_builder_without_an_entry() -> None:
    expected = {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:2", "NO_PROXY": "localhost", "A": "b"}
    assert with_proxies({"A": "b"}, PROXIES, "unix:///x") == expected
    assert with_proxies({}, PROXIES, "tcp://other:1") == {"HTTP_PROXY": "http://other:1"}


def test_what_the_user_gave_in_any_case_stays() -> None:
    assert with_proxies({"http_proxy": ""}, {"default": {"httpProxy": "http://p:1"}}) == {"http_proxy": ""}


def test_what_makes_no_sense_is_nothing() -> None:
    assert with_proxies({}, {"default": ["x"]}) == with_proxies({}, {}) == {}
    assert with_proxies({}, {"default": {"httpProxy": 5}}) == {}
