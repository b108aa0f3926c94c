"""Random patterns, paths and trees that look for trouble.  Everything follows from the ``random.Random`` given."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

NAMES = [
    b"a",
    b"b",
    b"c",
    b"ab",
    b"abc",
    b"foo",
    b"bar",
    b"x.py",
    b"y.pyc",
    b".git",
    b".cog",
    b"..a",
    b"...",
    b"a.b",
    b"A",
    b"-",
    b"a-b",
    b"a b",
    b" ",
    b" a",
    b"a ",
    b"!a",
    b"!",
    b"#a",
    b"^a",
    b"a]",
    b"[a]",
    b"*",
    b"a*",
    b"?",
    b"\\",
    b"a\\b",
    b"a\nb",
    b"\n",
    b"a\tb",
    b"$",
    b"a$",
    b"(a)",
    b"{a}",
    b"a|b",
    b"a+b",
    b"a,b",
    b"\x01",
    b"\x7f",
    "é".encode(),
    "日本".encode(),
    "\U0001f600".encode(),
    "\ufeffa".encode(),
    "\ufffd".encode(),
    "\u00a0".encode(),
    "e\u0301".encode(),
    b"\xff",
    b"a\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
]
PLAIN_NAMES = [b"a", b"b", b"c", b"ab", b"foo", b"x.py", b"y.pyc", b".git", b"a.b"]

_PIECES = [
    b"*",
    b"**",
    b"***",
    b"?",
    b"??",
    b"[a]",
    b"[ab]",
    b"[^a]",
    b"[a-c]",
    b"[a-\\]]",
    b"[\\]a]",
    b"[]",
    b"[",
    b"]",
    b"[^",
    b"[z-a]",
    b"[a-]",
    b"[-a]",
    b"[*]",
    b"[?]",
    b"[**]",
    b"[a-**]",
    b"[+-*]",
    b"[[:alpha:]]",
    b"[[:^alpha:]]",
    b"[[:no:]]",
    b"[\\d]",
    b"[\\w-z]",
    b"[^/]",
    b"[/]",
    b"[a/]",
    b"\\",
    b"\\\\",
    b"\\*",
    b"\\a",
    b"\\d",
    b"\\D",
    b"\\w",
    b"\\s",
    b"\\b",
    b"\\B",
    b"\\A",
    b"\\z",
    b"\\Z",
    b"\\Q",
    b"\\E",
    b"\\Qa\\E",
    b"\\pL",
    b"\\PL",
    b"\\pl",
    b"\\p",
    b"\\x61",
    b"\\x6",
    b"\\141",
    b"\\1",
    b"\\0",
    b"\\n",
    b"\\C",
    b"\\.",
    b"^",
    b"$",
    b".",
    b"+",
    b"(",
    b")",
    b"{1}",
    b"{2}",
    b"{0,1}",
    b"{2,}",
    b"{,2}",
    b"{01}",
    b"{2,1}",
    b"{1001}",
    b"{",
    b"}",
    b"|",
    b"||",
    b"a|b",
    b"|a",
    b"\\p{L}",
    b"\\P{Lu}",
    b"\\p{^Ll}",
    b"\\p{Letter}",
    b"\\p{no}",
    b"\\p{L",
    b"\\x{61}",
    b"\\x{}",
    b"\\x{110000}",
    b"\\x{e9}",
    b"-",
    b",",
    b"!",
    b"#",
    b"a**b",
    b"**a",
    b"a**",
    b"*a*",
    b"a*b*",
    b"*.py",
    b"*.py[co]",
    b"x.*",
    b".*",
    b"a?",
    b"?a",
    "é".encode(),
    b"[\xc3\xa9]",
    "[à-ü]".encode(),
    "[^é]".encode(),
    b"\xff",
    b"[\xff]",
    b"[^\xff]",
    b"[a-\xff]",
    "\ufffd".encode(),
    "[\ufffd]".encode(),
    "[^\ufffd]".encode(),
    "[a-\ufffd]".encode(),
    "\ufeff".encode(),
    b"\x00",
    b"\n",
    b"[\n]",
    b"[^\n]",
    b"\r",
    b"\t",
    b" ",
    "\u00a0".encode(),
    "\u2003".encode(),
    "\x85".encode(),
    b"\x85",
    b"\x1c",
    b"\\\xff",
    "\\é".encode(),
]

IGNORE_LINES = [
    b"**/__pycache__",
    b"**/*.py[cod]",
    b"**/*.pyc",
    b"*.egg-info",
    b".git",
    b".git/**",
    b"**/.git",
    b"node_modules",
    b"**/node_modules/**",
    b"dist/",
    b"/build",
    b"./out",
    b"!README.md",
    b"!**/keep",
    b"*.md",
    b"docs/*",
    b"!docs/index.md",
    b"a/**",
    b"!a/b",
    b"a/*",
    b"*",
    b"**",
    b"!a",
    b"!b/c",
    b"foo/bar",
    b"**/foo",
    b"**/a/**",
    b"a/b/../c",
    b"a//b",
    b"/",
    b".",
    b"..",
    b"../a",
    b"!..",
    b"",
    b" ",
    b"!",
    b"! a",
    b"!!a",
    b"a/./b",
    b"./a",
    b"/a",
    b"a/",
    b"!a/",
    b"**/",
    b"/**",
    b"!**",
    b"!*",
    b"*/*",
    b"*/a",
    b"a/*/c",
    b"**/*",
    b"*/**",
    b"!**/*.py",
    b"**/b/*",
    b"a/**/c",
    b"a/**/b/**/c",
    b"**/a**",
    b"**/**",
]


def name(rng: random.Random, *, plain: bool = False) -> bytes:
    if plain or rng.random() < 0.7:
        return rng.choice(PLAIN_NAMES)
    return rng.choice(NAMES)


def path(rng: random.Random, *, depth: int = 4, plain: bool = False) -> bytes:
    return b"/".join(name(rng, plain=plain) for _ in range(rng.randint(1, depth)))


def odd_path(rng: random.Random) -> bytes:
    """A path that is not clean, or any bytes."""
    parts = [rng.choice([b"", b".", b"..", b"a", b"b", b"a/", b"...", name(rng)]) for _ in range(rng.randint(0, 6))]
    return (b"/" if rng.random() < 0.2 else b"") + b"/".join(parts)


def pattern(rng: random.Random, paths: Sequence[bytes] = ()) -> bytes:
    kind = rng.random()
    if kind < 0.25:
        text = rng.choice(IGNORE_LINES)
    elif kind < 0.55 and paths:
        text = _near(rng, rng.choice(paths))
    elif kind < 0.8:
        text = b"/".join(_part(rng) for _ in range(rng.randint(1, 4)))
    else:
        text = b"".join(rng.choice([*_PIECES, b"/", b"a", b"b"]) for _ in range(rng.randint(1, 7)))
    if rng.random() < 0.25:
        text = b"!" + text
    if rng.random() < 0.05:
        text = rng.choice([b" ", b"\t", b"/", b"./", b"a/../"]) + text
    if rng.random() < 0.05:
        text += rng.choice([b" ", b"/", b"/.", b"/..", b"/**", b"/*", b"\r"])
    return text


def _part(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return b"**"
    if kind < 0.55:
        return name(rng)
    if kind < 0.8:
        return rng.choice([b"*", b"?", b"*.py", b"*.py[co]", b"a*", b"*b", b"[ab]", b"[^a]", b"x.*", b"?*", b"*a*"])
    return b"".join(rng.choice([*_PIECES, b"a", b"b"]) for _ in range(rng.randint(1, 3)))


def _near(rng: random.Random, path: bytes) -> bytes:
    """A pattern that has a good chance to match path, or something close to it."""
    parts = path.split(b"/")
    if rng.random() < 0.3:
        parts = parts[: rng.randint(1, len(parts))]
    for at in range(len(parts)):
        kind = rng.random()
        if kind < 0.15:
            parts[at] = b"*"
        elif kind < 0.3:
            parts[at] = b"**"
        elif kind < 0.4 and parts[at]:
            cut = rng.randrange(len(parts[at]))
            parts[at] = parts[at][:cut] + rng.choice([b"*", b"?", b"[^x]", b"**"]) + parts[at][cut + 1 :]
        elif kind < 0.45:
            parts[at] = b"".join(b"\\" + bytes([char]) for char in parts[at])
    if rng.random() < 0.15:
        parts.append(rng.choice([b"**", b"*"]))
    if rng.random() < 0.15:
        parts.insert(0, b"**")
    return b"/".join(parts)


def patterns(rng: random.Random, paths: Sequence[bytes] = (), *, most: int = 6) -> list[bytes]:
    count = rng.randint(1, most)
    made = [pattern(rng, paths) for _ in range(count)]
    if rng.random() < 0.1:
        made.append(rng.choice(made))
    return made


def readable_patterns(rng: random.Random, paths: Sequence[bytes] = (), *, most: int = 6) -> list[bytes]:
    """Patterns that hardly ever are errors, so that what they match is compared, not what is said of them."""
    good = [line for line in IGNORE_LINES if line.strip() not in (b"!", b"")]
    made = []
    for _ in range(rng.randint(1, most)):
        text = _near(rng, rng.choice(paths)) if paths and rng.random() < 0.6 else rng.choice(good)
        if rng.random() < 0.3 and not text.startswith(b"!"):
            text = b"!" + text
        made.append(text)
    return made


def make_tree(root: Path, rng: random.Random, *, entries: int = 30, plain: bool = False) -> list[bytes]:
    """Make a tree of everything a tree may hold; returns the paths of all entries."""
    base = os.fsencode(root)
    os.makedirs(base, exist_ok=True)
    directories = [b""]
    made: list[bytes] = []
    files: list[bytes] = []
    for _ in range(entries):
        parent = rng.choice(directories)
        relative = (parent + b"/" if parent else b"") + name(rng, plain=plain)
        where = os.path.join(base, relative)
        if os.path.lexists(where) or os.path.basename(relative) in (b".", b".."):
            continue
        kind = rng.random()
        if kind < 0.35:
            os.mkdir(where)
            directories.append(relative)
        elif kind < 0.5:
            os.symlink(_link_target(rng, made), where)
        elif kind < 0.6 and files:
            os.link(os.path.join(base, rng.choice(files)), where, follow_symlinks=False)
        else:
            _make_file(where, rng)
        if not os.path.isdir(where) or os.path.islink(where):
            files.append(relative)
        made.append(relative)
        _dress(where, rng)
    for relative in reversed([b"", *made]):
        _set_time(os.path.join(base, relative), rng)
    return made


def _link_target(rng: random.Random, made: Sequence[bytes]) -> bytes:
    kind = rng.random()
    if made and kind < 0.5:
        target = rng.choice(made)
        return rng.choice([b"", b"/", b"../", b"./", b"../../"]) + target
    if kind < 0.6:
        return rng.choice([b".", b"..", b"/", b"/..", b"a/../..", b"*", b"\xff", b"loop", b"a/b/c"])
    return odd_path(rng) or b"nowhere"


def _make_file(where: bytes, rng: random.Random) -> None:
    kind = rng.random()
    if kind < 0.08:
        os.mkfifo(where)
    elif kind < 0.12 and os.geteuid() == 0:
        device = rng.choice([stat.S_IFCHR, stat.S_IFBLK])
        os.mknod(where, 0o600 | device, os.makedev(rng.randint(1, 500), rng.randint(0, 70000)))
    elif kind < 0.15 and len(where) < 100:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(where)
    else:
        with open(where, "wb") as file:
            file.write(rng.randbytes(rng.choice([0, 1, 10, 10, 100, 5000])))


def _dress(where: bytes, rng: random.Random) -> None:
    link = os.path.islink(where)
    if rng.random() < 0.3 and not link:
        os.chmod(where, rng.choice([0o644, 0o755, 0o700, 0o4755, 0o2755, 0o1777, 0o6711, 0o7777, 0o777]))
    if rng.random() < 0.2 and os.geteuid() == 0:
        os.chown(where, rng.choice([0, 1000, 65534]), rng.choice([0, 1000, 65534]), follow_symlinks=False)
    if rng.random() < 0.2:
        namespaces = ["trusted"] if os.geteuid() == 0 else []
        if not link and stat.S_IFMT(os.lstat(where).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            namespaces.append("user")
        for namespace in namespaces[: rng.randint(0, 2)]:
            value = rng.randbytes(rng.choice([0, 1, 20, 300]))
            os.setxattr(where, f"{namespace}.{rng.choice(['a', 'b', 'é', 'a.b'])}", value, follow_symlinks=False)


def _set_time(where: bytes, rng: random.Random) -> None:
    moment = rng.choice(
        [
            0,
            1,
            -1,
            -1_000_000_001,
            1_700_000_000_123_456_789,
            2**31 * 10**9,
            4_000_000_000_999_999_999,
            rng.getrandbits(60),
        ]
    )
    os.utime(where, ns=(moment, moment), follow_symlinks=False)
