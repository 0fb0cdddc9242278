"""`next` values: paths of ours and nothing else."""

import pytest

from portico_gateway.web.locations import MAX_LOCATION, safe_path, studio_of


@pytest.mark.parametrize(
    "raw",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/ /evil.example",
        "http://evil.example/",
        "https:evil.example",
        "http:///evil.example",
        "javascript:alert(1)",
        "evil.example",
        "@evil.example",
        ".evil.example",
        "/.//evil.example",
        "/a/..//evil.example",
        "/a/b/../..//evil.example",
        "/%2e//evil.example",
        "/%2E%2e//evil.example",
        "//[::1]/",
        "//[",
        "/\x00",
        "/\x7f",
        "",
        "?x=1",
        "#x",
        "/" + "a" * MAX_LOCATION,
    ],
)
def test_a_place_that_is_not_a_path_of_ours_is_refused(raw: str) -> None:
    assert safe_path(raw) is None


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("/", "/"),
        ("/w/1?search=status%3Arunning", "/w/1?search=status%3Arunning"),
        ("/lab/tree/my%20file.ipynb?reset", "/lab/tree/my%20file.ipynb?reset"),
        ("/a/%2Fb/%2e%2e", "/a/%2Fb/%2e%2e"),
        ("/lab#cell", "/lab"),
        ("/caf\u00e9", "/caf%C3%A9"),
        ("/a//b", "/a//b"),
        ("/a?next=//evil.example", "/a?next=//evil.example"),
        ("/p?redirect=http://x/?a=b", "/p?redirect=http://x/?a=b"),
        ("/a:b@c", "/a:b@c"),
    ],
)
def test_a_path_is_kept_as_it_was_written(raw: str, kept: str) -> None:
    assert safe_path(raw) == kept


def test_none_is_no_place() -> None:
    assert safe_path(None) is None


@pytest.mark.parametrize(
    ("path", "studio"),
    [
        ("/studios/3fa1b2c4/open", "3fa1b2c4"),
        ("/studios/3fa1b2c4/open?next=/lab", "3fa1b2c4"),
        ("/handover?studio=3fa1b2c4&next=%2Flab&nonce=00", "3fa1b2c4"),
        ("/handover?studio=<b>", None),
        ("/handover", None),
        ("/w/1", None),
        (None, None),
    ],
)
def test_the_sign_in_page_knows_which_studio_a_visitor_is_after(path: str | None, studio: str | None) -> None:
    assert studio_of(path) == studio
