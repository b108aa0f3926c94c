"""YAML with positions: Cog's meaning of values, and the place of every mistake."""

from __future__ import annotations

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from cogkit.errors import ConfigError
from cogkit.project import yaml
from cogkit.project.yaml import Mapping, Mark, Scalar, Sequence, parse


def scalar(text: str) -> Scalar:
    node = parse(f"key: {text}\n", "cog.yaml")
    assert isinstance(node, Mapping)
    value = node.entries[0].value
    assert isinstance(value, Scalar)
    return value


def error(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "cog.yaml")
    return caught.value


def test_every_value_knows_where_it_starts() -> None:
    node = parse("build:\n  run:\n    - one\n    - 'two'\n", "cog.yaml")
    assert isinstance(node, Mapping)
    build = node.entries[0]
    assert (build.key, build.mark) == ("build", Mark(1, 1))
    assert isinstance(build.value, Mapping)
    run = build.value.entries[0]
    assert run.mark == Mark(2, 3)
    assert isinstance(run.value, Sequence)
    assert [item.mark for item in run.value.items] == [Mark(3, 7), Mark(4, 7)]


def test_columns_count_characters_not_bytes() -> None:
    node = parse("ключ: значение\n", "cog.yaml")
    assert isinstance(node, Mapping)
    assert node.entries[0].value.mark == Mark(1, 7)


def test_a_version_without_quotes_keeps_its_zero() -> None:
    assert scalar("3.10").text == "3.10"


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"])
def test_true_in_all_the_ways_cog_takes(text: str) -> None:
    assert scalar(text).as_bool() is True


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"])
def test_false_in_all_the_ways_cog_takes(text: str) -> None:
    assert scalar(text).as_bool() is False


@pytest.mark.parametrize("text", ["'true'", '"yes"', "tRUE", "1", "0", "truthy"])
def test_what_is_no_boolean(text: str) -> None:
    assert scalar(text).as_bool() is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-3", -3), ("+7", 7), ("0", 0), ("1_000", 1000), ("0x10", 16), ("0o17", 15), ("017", 15), ("0b11", 3)],
)
def test_integers(text: str, value: int) -> None:
    assert scalar(text).as_int() == value


@pytest.mark.parametrize("text", ["5.0", "'5'", "089", "0x_", "five", "1e3"])
def test_what_is_no_integer(text: str) -> None:
    assert scalar(text).as_int() is None


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_what_is_nothing(text: str) -> None:
    assert scalar(text).is_null


@pytest.mark.parametrize("text", ["''", "'null'", '"~"', "!!str ~", "nil"])
def test_what_is_something(text: str) -> None:
    assert not scalar(text).is_null


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x", "string"),
        ("'1'", "string"),
        ("1", "integer"),
        ("1.5", "number"),
        (".inf", "number"),
        ("true", "boolean"),
        ("yes", "string"),
        ("~", "nothing"),
    ],
)
def test_values_are_named_as_a_reader_would(text: str, kind: str) -> None:
    assert scalar(text).kind == kind


def test_an_empty_document_is_nothing() -> None:
    assert parse("", "cog.yaml") is None
    assert parse("# only a comment\n", "cog.yaml") is None


def test_a_byte_order_mark_is_allowed() -> None:
    assert isinstance(parse("\ufeffkey: value\n".encode(), "cog.yaml"), Mapping)


def test_anchors_and_merge_keys_are_resolved_and_own_keys_win() -> None:
    node = parse("base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n", "cog.yaml")
    assert isinstance(node, Mapping)
    own = node.entries[1].value
    assert isinstance(own, Mapping)
    found = {entry.key: entry.value for entry in own}
    assert {key: value.text for key, value in found.items() if isinstance(value, Scalar)} == {"x": "1", "y": "3"}


def test_merging_a_list_of_mappings_prefers_the_first() -> None:
    node = parse("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nown:\n  <<: [*a, *b]\n", "cog.yaml")
    assert isinstance(node, Mapping)
    own = node.entries[2].value
    assert isinstance(own, Mapping)
    assert [(entry.key, entry.value.text) for entry in own if isinstance(entry.value, Scalar)] == [
        ("x", "1"),
        ("y", "2"),
    ]


def test_a_bomb_of_aliases_takes_no_more_room_than_its_text() -> None:
    levels = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    node = parse("\n".join(levels), "cog.yaml")
    assert isinstance(node, Mapping)
    last = node.entries[-1].value
    assert isinstance(last, Sequence)
    assert last.items[0] is last.items[1]


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "cog.yaml:3:1", 'mapping key "a" already defined at line 1'),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "cog.yaml:4:3", 'mapping key "b" already defined at line 2'),
        ("build:\n\tgpu: true\n", "cog.yaml:2:1", "a tab is used for indentation"),
        ("a: b: c\n", "cog.yaml:1:5", "mapping values are not allowed"),
        ("a: *nowhere\n", "cog.yaml:1:4", "undefined alias"),
        ("a: 1\n---\nb: 2\n", "cog.yaml:2:1", "a second YAML document starts here"),
        ("a: 'open\n", "cog.yaml:1:4", "never closed"),
        ("build:\n  a: 1\n b: 2\n", "cog.yaml:3:2", "does not fit the indentation"),
        ("a: &x [*x]\n", "cog.yaml:1:4", "contains itself"),
        ("? [a]\n: b\n", "cog.yaml:1:3", "a key must be plain text"),
        ("a:\n  <<: text\n", "cog.yaml:2:7", "needs a mapping"),
        ("a: \x07\n", "cog.yaml:1:4", "control character U+0007"),
        ("a: @b\n", "cog.yaml:1:4", "cannot start any token"),
    ],
)
def test_each_mistake_has_its_place(text: str, where: str, words: str) -> None:
    caught = error(text)
    assert caught.where == where
    assert words in caught.message
    assert caught.hint


def test_a_byte_that_is_not_utf8_has_its_place() -> None:
    caught = error("ä: ".encode() + b"\xff\n")
    assert caught.where == "cog.yaml:1:4"
    assert "0xff" in caught.message


def test_an_unclosed_bracket_is_told() -> None:
    caught = error("a: [1,\n")
    assert "may not be closed" in (caught.hint or "")


def test_nesting_without_end_is_refused_not_followed() -> None:
    assert error("[" * 500 + "]" * 500).where == "cog.yaml:1:51"
    assert error("a: " + "[" * 100_000).where == "cog.yaml:1:53"


def test_the_offending_line_is_shown() -> None:
    assert error("ok: 1\na: b: c\n").detail == "  2 | a: b: c"


def test_both_parsers_of_pyyaml_give_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x [1, '2', \"3\", 3.10, yes, ~]\nb: {<<: {c: d}}\ne: |\n  text\nf: >-\n  folded\n  text\ng: *x\n"
    fast = parse(text, "cog.yaml")
    monkeypatch.setattr(yaml, "_Loader", pyyaml.SafeLoader)
    assert parse(text, "cog.yaml") == fast


@given(st.text(max_size=60))
def test_any_text_is_a_tree_or_a_config_error(text: str) -> None:
    try:
        parse(text, "cog.yaml")
    except ConfigError as caught:
        assert caught.where is not None


@given(st.binary(max_size=40))
def test_any_bytes_are_a_tree_or_a_config_error(content: bytes) -> None:
    try:
        parse(content, "cog.yaml")
    except ConfigError as caught:
        assert caught.where is not None
