"""Our patterns against github.com/moby/patternmatcher, on random input (`generate`) and on every oddity we know of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from cogkit.buildkit.fsutil import gopath
from cogkit.buildkit.fsutil.gopath import to_bytes, to_str
from cogkit.buildkit.fsutil.patternmatcher import automaton
from cogkit.buildkit.fsutil.patternmatcher.directory_states import MatchState, PreparedMatcher
from cogkit.buildkit.fsutil.patternmatcher.patterns import MatchInfo, PatternError, PatternMatcher
from tests.conformance import generate
from tests.oracle.oracle import Oracle

BLOCKS = 8
CASES = 600  # per block

ODDITIES: list[list[bytes]] = [
    # what is trimmed, cleaned or refused
    [b""],
    [b" "],
    [b"!"],
    [b"! "],
    [b"!/"],
    [b"a/../!"],
    [b" a "],
    [b"\xc2\xa0a\xe2\x80\x83"],
    [b"\x85a", b"\x1cb"],
    [b"./a", b"a/./b", b"a//b", b"a/b/../c", b"../a", b"a/../../b"],
    [b"/", b".", b"..", b"/a", b"a/", b"!a/"],
    [b"! a"],
    [b"!!a"],
    [b"!/a"],
    [b"!./a"],
    # syntax that is looked at when the list is read, or only when it is used
    [b"["],
    [b"[]"],
    [b"[a"],
    [b"[^"],
    [b"[]a]"],
    [b"a*["],
    [b"a*[]"],
    [b"a*\\"],
    [b"\\"],
    [b"[z-a]"],
    [b"[a-]"],
    [b"[-a]"],
    [b"a*[z-a]"],
    [b"!a*["],
    [b"a", b"!b*["],
    [b"[\xff]"],
    [b"a*[\xff]"],
    # string comparisons that upstream takes for regular expressions
    [b"a/**"],
    [b"a**"],
    [b"**/a"],
    [b"**a"],
    [b"**"],
    [b"***"],
    [b"****"],
    [b"**/**"],
    [b"**/*"],
    [b"a**/b"],
    [b"a/**/b"],
    [b"**/a/**"],
    [b"**/a.b"],
    [b"**/^a"],
    [b"\xef\xbb\xbf**/a"],
    [b"\xef\xbb\xbfa"],
    [b"\xef\xbb\xbfa*"],
    [b"**\xa9"],
    [b"\xc3**"],
    # parts of patterns that are no glob but a regular expression
    [b"[^a]"],
    [b"a[^x]b"],
    [b"[*]"],
    [b"[?]b"],
    [b"[**]"],
    [b"[+-*]"],
    [b"[[:alpha:]]*"],
    [b"[[:^alpha:]]*"],
    [b"*[[:nope:]]"],
    [b"\\d*"],
    [b"*\\D"],
    [b"\\w*"],
    [b"a\\b*"],
    [b"a\\B*"],
    [b"*\\z"],
    [b"\\Aa*"],
    [b"\\Qa*"],
    [b"\\Qa\\E*"],
    [b"\\pL*"],
    [b"*\\PL"],
    [b"\\p{Lu}*"],
    [b"*\\p{^Lu}"],
    [b"\\x61*"],
    [b"\\x{61}*"],
    [b"\\141*"],
    [b"*\\1"],
    [b"a^*"],
    [b"^a*"],
    [b"a|b*"],
    [b"a|b"],
    [b"*|a"],
    [b"?{2}"],
    [b"a{2}*"],
    [b"*{2}"],
    [b"a{2,1}*"],
    [b"a{1001}*"],
    [b"a{,2}*"],
    [b"a{01}*"],
    [b"*\\Q\\E{3}"],
    ["*\\é".encode()],
    # invalid bytes are U+FFFD to a regular expression, and themselves to a string comparison
    [b"\xff"],
    [b"\xff*"],
    ["\ufffd*".encode()],
    ["[\ufffd]".encode()],
    ["[^\ufffd]".encode()],
    ["[a-\ue000]".encode()],
    [b"*\xff"],
    # exceptions; the two ways to ask differ in some of these
    [b"a", b"!a/b", b"a"],
    [b"a/b", b"!a"],
    [b"*", b"!a", b"a/b"],
    [b"**", b"!**/a", b"**/b"],
    [b"a/*", b"!a/b", b"a/b/c"],
]

ODD_PATHS = [
    *generate.NAMES,
    b"a/b",
    b"a/b/c",
    b"b/a",
    b"a/a",
    b"aa",
    b"aab",
    b"ba",
    b"a/x",
    b"a/b/c/d",
    b"dir/a.b",
    b"a^",
    b"a9",
    b"9",
    b"a\nb/c",
    b"c/a\nb",
    b"\xff/a",
    b"a/\xff",
    "é/é".encode(),
    b"a\xc3\xa9",
    b"\xc3\xa9a",
]


def _answers(ask: Callable[[str], bool], paths: Sequence[str]) -> str:
    """One letter per path: t, f, or e for an error."""
    letters = []
    for path in paths:
        try:
            letters.append("t" if ask(path) else "f")
        except PatternError:
            letters.append("e")
    return "".join(letters)


def _walked(matcher: PatternMatcher, path: str) -> tuple[bool, MatchInfo]:
    parent = gopath.parent(path)
    info = MatchInfo()
    if parent not in (".", "/", path):
        _, info = _walked(matcher, parent)
    return matcher.matches_using_parent_results(path, info)


def _state_of_parent(prepared: PreparedMatcher, path: str) -> tuple[MatchState, str]:
    state = prepared.root
    *parents, name = path.split("/")
    for depth, parent in enumerate(parents):
        _, state = state.enter(parent, "/".join(parents[: depth + 1]))
    return state, name


def _prepared_file(prepared: PreparedMatcher, path: str) -> bool:
    state, name = _state_of_parent(prepared, path)
    return state.file(name, path)


def _prepared_directory(prepared: PreparedMatcher, path: str) -> bool:
    state, name = _state_of_parent(prepared, path)
    return state.enter(name, path)[0]


def _prepared_direct(prepared: PreparedMatcher, path: str) -> bool:
    state, name = _state_of_parent(prepared, path)
    return state.direct(name, path)


def differences(oracle: Oracle, patterns: Sequence[bytes], raw_paths: Sequence[bytes]) -> list[str]:
    """Where we differ from upstream; empty if nowhere."""
    expected = oracle.match(patterns, raw_paths)
    try:
        matcher = PatternMatcher([to_str(pattern) for pattern in patterns])
    except PatternError as error:
        return [] if expected.get("error") == error.message else [f"{patterns}: {error.message!r} but {expected}"]
    if "error" in expected:
        return [f"{patterns}: no error, but {expected['error']!r}"]
    paths = [to_str(path) for path in raw_paths]
    prepared = PreparedMatcher(matcher)
    found = {
        "matches": _answers(matcher.matches, paths),
        "parents": _answers(matcher.matches_or_parent_matches, paths),
        "alone": _answers(lambda path: matcher.matches_using_parent_results(path, MatchInfo())[0], paths),
        "walked": _answers(lambda path: _walked(matcher, path)[0], paths),
        "walked (prepared, file)": _answers(lambda path: _prepared_file(prepared, path), paths),
        "walked (prepared, directory)": _answers(lambda path: _prepared_directory(prepared, path), paths),
    }
    if "e" not in expected["walked"]:  # a walk that fails never comes to ask
        found["parents (prepared)"] = _answers(lambda path: _prepared_direct(prepared, path), paths)
    wrong = []
    for function, letters in found.items():
        wanted = expected[function.split()[0]]
        if letters != wanted:
            where = [path for path, one, other in zip(raw_paths, letters, wanted, strict=True) if one != other]
            wrong.append(f"{function} of {list(patterns)} on {where[:3]}: {letters}, upstream {wanted}")
    return wrong


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_patterns_match_what_upstream_matches(oracle: Oracle, cases: float, block: int) -> None:
    count = int(CASES * cases)
    wrong = []
    for seed in range(block * count, (block + 1) * count):
        rng = random.Random(seed)
        paths = [generate.path(rng) for _ in range(12)]
        make = generate.patterns if seed % 2 else generate.readable_patterns
        wrong += [f"seed {seed}: {line}" for line in differences(oracle, make(rng, paths), paths)]
    assert not wrong, "\n".join(wrong[:10])


@pytest.mark.parametrize("patterns", ODDITIES, ids=lambda patterns: repr(patterns)[1:-1])
def test_known_oddities_are_the_same(oracle: Oracle, patterns: list[bytes]) -> None:
    wrong = differences(oracle, patterns, ODD_PATHS)
    assert not wrong, "\n".join(wrong)


def test_the_automaton_matches_what_upstream_matches(
    oracle: Oracle, cases: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expressions that could be slow get an automaton; here all of them do."""
    monkeypatch.setattr(automaton, "_SLOW", 0)
    wrong = []
    for seed in range(int(800 * cases)):
        rng = random.Random(f"automaton {seed}")
        paths = [generate.path(rng) for _ in range(12)]
        wrong += [f"seed {seed}: {line}" for line in differences(oracle, generate.patterns(rng, paths), paths)]
    for patterns in ODDITIES:
        wrong += differences(oracle, patterns, ODD_PATHS)
    assert not wrong, "\n".join(wrong[:10])


def test_paths_that_are_not_clean_match_the_same(oracle: Oracle, cases: float) -> None:
    wrong = []
    for seed in range(int(500 * cases)):
        rng = random.Random(seed)
        paths = [generate.odd_path(rng) or b"a" for _ in range(8)]
        patterns = generate.patterns(rng, paths, most=3)
        expected = oracle.match(patterns, paths)
        if "error" in expected:
            continue
        matcher = PatternMatcher([to_str(pattern) for pattern in patterns])
        found = _answers(matcher.matches_or_parent_matches, [to_str(path) for path in paths])
        if found != expected["parents"]:
            wrong.append(f"seed {seed}: {patterns} on {paths}: {found}, upstream {expected['parents']}")
    assert not wrong, "\n".join(wrong[:10])


def test_long_lists_and_long_patterns_match_the_same(oracle: Oracle) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        paths = [generate.path(rng, depth=8) for _ in range(60)]
        assert not differences(oracle, generate.readable_patterns(rng, paths, most=80), paths)
    long = b"/".join([b"a" * 200] * 20)
    assert not differences(
        oracle, [long, b"*" + long, long[:-3] + b"*", b"**/" + b"a" * 200], [long, long[1:], long[:-1]]
    )


def test_go_path_functions_are_the_same(oracle: Oracle, cases: float) -> None:
    for seed in range(int(60 * cases)):
        rng = random.Random(seed)
        paths = [generate.odd_path(rng) for _ in range(20)] + [generate.name(rng) for _ in range(20)]
        patterns = [generate.pattern(rng, paths) for _ in range(30)]
        expected = oracle.paths(patterns, paths)
        texts = [to_str(path) for path in paths]
        assert [to_bytes(gopath.clean(text)) for text in texts] == expected["clean"], seed
        assert [to_bytes(gopath.parent(text)) for text in texts] == expected["dir"], seed
        assert [to_bytes(gopath.base(text)) for text in texts] == expected["base"], seed
        for pattern, wanted in zip(patterns, expected["match"], strict=True):
            found = []
            for path in paths:
                try:
                    found.append("t" if gopath.match(pattern, path) else "f")
                except gopath.BadPattern:
                    found.append("e")
            assert "".join(found) == wanted, (seed, pattern)
