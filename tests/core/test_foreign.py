import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.foreign import printable, quoted, without_credentials


@given(st.text())
def test_what_is_printed_moves_no_cursor(text: str) -> None:
    assert printable(text).isprintable()
    assert quoted(text, 20).isprintable()
    assert len(quoted(text, 20)) <= 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:password@prometheus:9090/api", "http://prometheus:9090/api"),
        ("redis://:p@ss@redis:6379/0 is down", "redis://redis:6379/0 is down"),
        ("two: https://a:b@one and https://token@two/", "two: https://one and https://two/"),
        ("http://host/path@home", "http://host/path@home"),
        ("mail me@home", "mail me@home"),
    ],
)
def test_no_user_part_of_a_url_is_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_a_quotation_is_one_line_without_passwords() -> None:
    assert quoted("a\n\x1b[2Jb http://u:p@h") == "a \\x1b[2Jb http://h"
