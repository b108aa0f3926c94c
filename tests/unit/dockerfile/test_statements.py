"""Single statements: plain where that is read right, in a longer form where it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.dockerfile.statements import copy, environment
from cogkit.errors import ConfigError


@pytest.mark.parametrize(
    ("sources", "target", "statement"),
    [
        (["."], "/src", "COPY . /src"),
        (["a b"], "/src/a b", 'COPY ["a b", "/src/a b"]'),
        (["ключ"], "/src/ключ", 'COPY ["ключ", "/src/ключ"]'),
        (["$HOME"], "/src/x", 'COPY ["\\\\$HOME", "/src/x"]'),
        (["[a]"], "/src/x", 'COPY ["[[]a]", "/src/x"]'),
        (['say "hi"'], "/src/x", 'COPY ["say \\\\\\"hi\\\\\\"", "/src/x"]'),
        (["it's"], "/src/it's", 'COPY ["it\\\\\'s", "/src/it\\\\\'s"]'),
    ],
)
def test_paths_are_copied_as_themselves(sources: list[str], target: str, statement: str) -> None:
    assert copy(sources, target) == statement


@pytest.mark.parametrize("name", ["a*b", "a?b", "back\\slash", "tab\there", "line\nbreak", "\x7f"])
def test_a_name_that_buildkit_cannot_be_told_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="BuildKit cannot be told to copy"):
        copy([name], "/src/x")


def test_flags_come_first() -> None:
    assert copy(["a", "b"], "/x/", stage="uv", link=True) == "COPY --from=uv --link a b /x/"


def test_variables_are_sorted_and_written_as_cog_writes_them() -> None:
    assert environment({}) == ""
    assert environment({"B": "2", "A": "$PATH:/x", "C": "a=b"}) == "ENV A=$PATH:/x B=2 C=a=b"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", ""),
        ("plain", "plain"),
        ('"two words"', '"two words"'),
        ("'two words'", "'two words'"),
        ("two\\ words", "two\\ words"),
        ("two words", '"two words"'),
        ("it's", '"it\'s"'),
        ('5" disk', '"5\\" disk"'),
        ("C:\\dir\\", '"C:\\\\dir\\\\"'),
        ("tab\there", '"tab\there"'),
    ],
)
def test_a_value_is_quoted_only_if_it_would_fall_apart(value: str, written: str) -> None:
    assert environment({"A": value}) == f"ENV A={written}"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_a_value_never_swallows_what_follows_it(value: str) -> None:
    statement = environment({"A": value, "B": "2"})
    assert _words(statement.removeprefix("ENV "))[-1] == "B=2"
    assert len(_words(statement.removeprefix("ENV "))) == 2


def _words(text: str) -> list[str]:
    """The words of an ENV as the frontend splits them (frontend/dockerfile/parser, parseWords)."""
    words: list[str] = []
    word, quote, in_word = "", "", False
    position = 0
    while position < len(text):
        character = text[position]
        if not in_word and character.isspace():
            position += 1
            continue
        in_word = True
        if not quote and character.isspace():
            words.append(word)
            word, in_word = "", False
        elif character == "\\" and quote != "'":
            word += text[position : position + 2]
            position += 1
        else:
            if character == quote:
                quote = ""
            elif not quote and character in "\"'":
                quote = character
            word += character
        position += 1
    return [*words, word] if in_word else words
