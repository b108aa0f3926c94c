"""Patterns without the oracle: their shape, their errors, and the fast way against the plain one."""

from __future__ import annotations

import re

import pathspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogkit.buildkit.fsutil.filter import TreeFilter, dedupe_paths, include_patterns
from cogkit.buildkit.fsutil.patternmatcher import automaton, goregexp
from cogkit.buildkit.fsutil.patternmatcher.directory_states import DirState, PreparedMatcher
from cogkit.buildkit.fsutil.patternmatcher.patterns import (
    MatchInfo,
    MatchType,
    MobyPattern,
    PatternError,
    PatternMatcher,
    matches,
    matches_or_parent_matches,
    read_ignore_file,
)
from cogkit.cli.exit_codes import exit_code_of

NAMES = st.sampled_from(["a", "b", "ab", "x.py", ".git", "é", "\udcff", "a\nb", "a.b"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.sampled_from(["a", "b", "*", "**", "?", "*b", "a*", "*.py[co]", "[^a]", "a**b", "x.*", "\\a", "é", "[ab]?"])
PATTERNS = st.builds(
    lambda sign, parts: sign + "/".join(parts), st.sampled_from(["", "", "!"]), st.lists(PARTS, min_size=1, max_size=4)
)


def walked(matcher: PatternMatcher, path: str) -> bool:
    info = MatchInfo()
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        matched, info = matcher.matches_using_parent_results("/".join(parts[:depth]), info)
    return matched


@settings(max_examples=600, deadline=None)
@given(st.lists(PATTERNS, min_size=1, max_size=6), PATHS)
def test_prepared_patterns_match_as_plain_ones(patterns: list[str], path: str) -> None:
    matcher = PatternMatcher(patterns)
    prepared = PreparedMatcher(matcher)
    state = prepared.root
    *parents, name = path.split("/")
    for depth, parent in enumerate(parents):
        _, state = state.enter(parent, "/".join(parents[: depth + 1]))
    assert state.file(name, path) == state.enter(name, path)[0] == walked(matcher, path)
    assert state.direct(name, path) == matcher.matches_or_parent_matches(path)
    if state.agrees:
        assert state.direct(name, path) == state.file(name, path)


def test_directories_of_a_tree_share_few_states() -> None:
    prepared = PreparedMatcher(PatternMatcher(["**/*.pyc", "build", "**/node_modules", "docs/*.md"]))
    state = prepared.root
    seen = set()
    for depth in range(50):
        _, state = state.enter(f"d{depth}", "/".join(f"d{n}" for n in range(depth + 1)))
        assert isinstance(state, DirState)
        seen.add(state)
    assert len(seen) == 1


def test_patterns_are_pathspec_patterns() -> None:
    spec = pathspec.PathSpec([MobyPattern("**/*.pyc"), MobyPattern("!keep.pyc")])
    assert spec.match_file("a/b.pyc")
    assert not spec.match_file("keep.pyc")
    assert MobyPattern("a").include is True
    assert MobyPattern("!a").include is False
    assert MobyPattern("a/*").match_file("a/b") is not None
    assert MobyPattern("a/*").match_file(b"a/b") is not None
    assert MobyPattern("a/*").match_file("b/b") is None
    expression, include = MobyPattern.pattern_to_regex("a?c")
    assert include and re.search(expression, "abc")


@pytest.mark.parametrize(
    ("pattern", "type"),
    [("a/b", MatchType.EXACT), ("a/**", MatchType.PREFIX), ("**/a", MatchType.SUFFIX), ("a*", MatchType.REGEXP)],
)
def test_a_pattern_that_a_comparison_does_has_no_regular_expression_of_its_own(pattern: str, type: MatchType) -> None:
    assert MobyPattern(pattern).match_type is type


def test_a_lone_exclamation_mark_is_refused() -> None:
    with pytest.raises(PatternError, match=r'^illegal exclusion pattern: "!"$') as caught:
        PatternMatcher(["a", "!"])
    assert exit_code_of(caught.value) == 2
    assert caught.value.hint


def test_a_malformed_pattern_is_refused_at_once_or_when_it_is_used() -> None:
    with pytest.raises(PatternError, match=r"^syntax error in pattern$"):
        PatternMatcher(["[a"])
    late = PatternMatcher(["a*["])
    with pytest.raises(PatternError, match=r"^syntax error in pattern$"):
        late.matches_or_parent_matches("b")
    unused = PatternMatcher(["!a*["])
    assert not unused.matches_or_parent_matches("b")


def test_the_filter_says_which_list_a_refused_pattern_is_in() -> None:
    with pytest.raises(PatternError, match=r"^invalid includepatterns: \[a \[\]: syntax error in pattern$"):
        TreeFilter(["a", "["])
    with pytest.raises(PatternError, match=r"^invalid excludepatterns: \[!\]: illegal exclusion pattern"):
        TreeFilter(None, ["!"])
    state = TreeFilter(None, ["a*["]).root
    assert state is not None
    with pytest.raises(PatternError, match=r"^failed to match excludepatterns: syntax error in pattern$"):
        state.keeps("b", "b")
    with pytest.raises(PatternError, match=r"^failed to match excludepatterns: syntax error in pattern$"):
        state.enter("b", "b")


def test_results_of_other_patterns_are_refused() -> None:
    with pytest.raises(PatternError, match="wrong number of values in parentMatched"):
        PatternMatcher(["a", "b"]).matches_using_parent_results("a", MatchInfo((True,)))


def test_the_root_never_matches() -> None:
    assert not matches(".", ["*", "."])
    assert not matches_or_parent_matches("./", ["**"])
    assert matches_or_parent_matches("a/../b/c", ["b"])


def test_patterns_are_trimmed_as_go_does() -> None:
    assert PatternMatcher(["\u2003a\t"]).matches_or_parent_matches("a")
    assert not PatternMatcher(["\x1ca"]).matches_or_parent_matches("a")


def test_an_ignore_file_is_cleaned() -> None:
    content = b"\xef\xbb\xbf# comment\n\n  /a/b/ \r\n! ./c\n!\n #d\nx/../y\n/"
    assert read_ignore_file(content) == ["a/b", "!c", "!", "#d", "y", "/"]


def test_an_ignore_file_may_hold_any_bytes() -> None:
    assert read_ignore_file(b"\xff\n") == ["\udcff"]


def test_a_line_that_upstream_cannot_read_is_refused() -> None:
    with pytest.raises(PatternError, match="line 2 of the ignore file is too long"):
        read_ignore_file(b"a\n" + b"b" * 65536)


@pytest.mark.parametrize("expression", ["a)", "(a", "[a", "\\", "\\8", "*a", "a**", "a{2}{3}", "\\p{Greek}", "a|{2}"])
def test_expressions_that_go_refuses_or_we_cannot_know(expression: str) -> None:
    with pytest.raises(goregexp.GoRegexpError):
        goregexp.parse(expression)


def test_nesting_has_an_end() -> None:
    with pytest.raises(goregexp.GoRegexpError, match="nests too deeply"):
        goregexp.parse("a" + "{1}\\Q\\E" * 200)


def test_a_set_without_members_matches_nothing() -> None:
    expression = goregexp.to_python(goregexp.parse("[^\\x00-\\x{10FFFF}]"))
    assert not re.search(expression, "a")
    assert re.search(goregexp.to_python(goregexp.parse("[\\s\\S]")), "\udcff")


def test_paths_below_others_are_dropped() -> None:
    assert dedupe_paths(["a", "a/b", "b/c", "b/c/d", "c"]) == ["a", "b/c", "c"]
    assert dedupe_paths(["a", "."]) is None
    assert dedupe_paths(["/a", "b", "/c"]) == ["b", "/c"]


def test_follow_targets_are_added_to_the_include_patterns() -> None:
    assert include_patterns(["x"], ["a", "a/b"]) == ["x", "a"]
    assert include_patterns(None, ["a"]) == ["a"]
    assert include_patterns(["x"], None) == ["x"]
    assert include_patterns(None, None) is None
    assert include_patterns(["."], ["a"]) is None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*a*a*a*a*a*a*a*b", "a" * 250),
        ("*[^x]*[^x]*[^x]*[^x]*[^x]*y", "a" * 250),
        ("**a**a**a**a**a**b", "a/" * 500 + "a"),
        ("**/a/**/a/**/a/**/a/**/b", "a/" * 500 + "a"),
        ("a{0,500}a{0,500}a{0,500}a{0,500}b*", "a" * 250),
        ("*\\Q\\E{30}b", "a" * 250),
    ],
)
def test_no_pattern_takes_for_ever(pattern: str, text: str) -> None:
    """With a plain ``re`` each of these is busy for minutes; the test's time limit is what would fail."""
    matcher = PatternMatcher([pattern])
    assert not matcher.patterns[0].matches(text)
    assert not PreparedMatcher(matcher).root.file(text, text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["a", "b", "[ab]", "[^a]", ".", "a*", "[^/]*", "(.*/)?", "b{0,2}", "(a|b)", "\\b", "\\B", "^", "$", "/"]
        ),
        max_size=7,
    ).map("".join),
    st.text("ab/é\n\udcff", max_size=8),
)
def test_the_automaton_matches_what_re_matches(expression: str, text: str) -> None:
    node = goregexp.parse(expression)
    expected = re.search(goregexp.to_python(node), text, re.ASCII) is not None
    assert automaton.Automaton(node).matches(text) == expected
