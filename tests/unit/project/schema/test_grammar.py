"""Sources by the grammar of the image's Python: newer syntax is read, too new syntax refused, and places stay."""

from __future__ import annotations

import ast
import sys

import pytest

from cogkit.errors import ConfigError
from cogkit.project.schema import grammar
from cogkit.project.schema.grammar import MAX_SOURCE, TYPE_ALIAS, parse, parse_expression


def refused(source: str | bytes, python: str = "") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(source.encode() if isinstance(source, str) else source, "m.py", python)
    return caught.value


def words(source: str) -> str:
    return ast.dump(parse(source.encode(), "m.py").tree)


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ('x = f"{d["a"]}"', "x = f\"{d['a']}\""),
        ('x = f"{f"{f"{1}"}"}"', "x = f\"{f'''{f'{1}'}'''}\""),
        ('x = f"{\n  a # why\n}b"', 'x = f"{a}b"'),
        ('x = f"{"".join(["\\n"])}"', "N = 1;x = f\"{''.join([N])}\""),
        ('x = "a" f"{d["b"]}" \'c\'', "x = f\"a{d['b']}c\""),
        ('x = f"{a!r:>{d["w"]}}{{}}\\t"', "x = f\"{a!r:>{d['w']}}{{}}\\t\""),
        ('x = f"{d["a"] = }"', "x = 'd[\"a\"] = ' f\"{d['a']!r}\""),
        ('x = rf"\\d{d["a"]}\\N{d["b"]}"', "x = rf\"\\d{d['a']}\\N{d['b']}\""),
        ('x = f"\\N{EN DASH}{d["a"]}"', "x = f\"\u2013{d['a']}\""),
        ('x = f"""{d["""a"""]}\n{1}"""', "x = f\"{d['a']}\\n{1}\""),
        ('x = 1if a else f"{d["a"]}"if b else 2', "x = 1 if a else f\"{d['a']}\" if b else 2"),
        ("try: pass\nexcept A, B: pass", "try: pass\nexcept (A, B): pass"),
        ("try: pass\nexcept  A, (B): pass", "try: pass\nexcept (A, B): pass"),
        ("try: pass\nexcept* A, B: pass", "try: pass\nexcept* (A, B): pass"),
        ("type X = int", f"X: {TYPE_ALIAS} = int"),
        ('type X[T] = f"{d["a"]}"', f"X: {TYPE_ALIAS} = f\"{{d['a']}}\""),
    ],
)
def test_newer_syntax_says_what_it_would_say_in_older_words(newer: str, older: str) -> None:
    expected = ast.dump(ast.parse(older))
    if "N = 1;" in older:  # no older words for a backslash in braces
        expected = ast.dump(ast.parse("x = f\"{''.join([N])}\"")).replace(
            "Name(id='N', ctx=Load())", "Constant(value='\\n')"
        )
    assert words(newer) == expected


@pytest.mark.parametrize(
    "source",
    [
        "class A[T: int, *Ts, **P](B):\n    def f[U](self, x: U) -> U: ...\n",
        "class A[T = int]: pass\n",
        "async def f[T](x): pass\n",
    ],
)
def test_type_parameters_mean_nothing_to_a_schema(source: str) -> None:
    tree = parse(source.encode(), "m.py").tree
    assert isinstance(tree.body[0], ast.ClassDef | ast.AsyncFunctionDef)


def test_a_t_string_is_an_expression_without_a_value() -> None:
    statement = parse(b'x = t"{a}" + (t"b")', "m.py").tree.body[0]
    assert isinstance(statement, ast.Assign)
    assert isinstance(statement.value, ast.BinOp)


@pytest.mark.parametrize(
    ("source", "since"),
    [
        ("match x:\n    case 1: pass", 10),
        ("try: pass\nexcept* A: pass", 11),
        ("x = a[*b]", 11),
        ("x = a[1, *b]", 11),
        ('x = f"{d["a"]}"', 12),
        ('x = f"{f"{1}"}"', 12),
        ("x = f'{d[\"\\n\"]}'", 12),
        ('x = f"{\n1}"', 12),
        ('x = f"""{\n1 # why\n}"""', 12),
        ('x = f"{\'"\'}"', 12),
        ("type X = int", 12),
        ("def f[T](): pass", 12),
        ("class A[T = int]: pass", 13),
        ("type X[T = int] = int", 13),
        ("try: pass\nexcept A, B: pass", 14),
        ('x = t"{a}"', 14),
    ],
)
def test_what_is_too_new_for_the_image_is_said_with_its_place(source: str, since: int) -> None:
    parse(source.encode(), "m.py", f"3.{since}")
    parse(source.encode(), "m.py", f"3.{since}.1")
    error = refused(source, f"3.{since - 1}")
    assert error.message.startswith(f"only Python 3.{since} and newer know this (")
    assert error.message.endswith(f"), and the image has 3.{since - 1}")
    assert error.where is not None and error.where.startswith("m.py:")
    assert error.hint is not None and f'"3.{since}"' in error.hint


@pytest.mark.parametrize(
    "source",
    [
        "x = f\"{d['a']}\"",
        "x = f'''{d[\"a\"]} {\n1}'''",
        "x = f'{a:\"}'",
        "x = f'{a!r:>{w}}' '\\n' # \"",
        'x = f"\\n{a}"',
        "x = f'{{{a}}}'",
        "x = a[(*b,)]",
    ],
)
def test_what_old_pythons_know_is_let_pass(source: str) -> None:
    parse(source.encode(), "m.py", "3.10")


def test_places_are_those_of_the_source_as_it_was() -> None:
    source = (
        'é = f"{d["ö"]}é"; y = (1, 2)\n'
        "try: pass\n"
        "except A, BB: z = 3\n"
        "def f[T](first, second): return [4]\n"
        "type  Long[T] = int; u = 5\n"
        'v = f"{\n1\n}", 6\n'
        "w = [7]\n"
    )
    data, tree = (parsed := parse(source.encode(), "m.py")).data, parsed.tree
    assert data.decode() == source
    shown = {ast.get_source_segment(source, node) for node in ast.walk(tree)}
    expected = {'f"{d["ö"]}é"', "(1, 2)", "BB", "z", "3", "first", "second", "[4]", "u", "5", 'f"{\n1\n}"', "6", "[7]"}
    assert expected <= shown
    handler = next(node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    assert isinstance(handler.type, ast.Tuple) and handler.type.lineno == 3


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ('x = f"{d["a"]}"\ny = = 1\n', "m.py:2:5"),
        ('x = f"{d["a"]}"\ndef f():\n    return (x\n', "m.py:3:12"),
        ('é = f"{d["a"]}"; 1 = 2\n', "m.py:1:21"),
        ("type X = int\nx = 'a\n", "m.py:2:5"),
        ("try: pass\nexcept A, B as e: pass\n", "m.py:2:8"),
        ("type (X) = 1\n", "m.py:1:1"),
    ],
)
def test_a_mistake_beside_newer_syntax_has_its_own_place(source: str, where: str) -> None:
    error = refused(source)
    assert error.message.startswith("failed to parse Python source: ")
    if sys.version_info < (3, 12):
        assert error.where == where
    assert error.where is not None and error.where.rpartition(":")[0] == where.rpartition(":")[0]


NEWER = 'x = f"{d["a"]}"\n'


@pytest.mark.parametrize("count", [150, 9_000])
@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        ("y = ", "(", ")"),
        ("y = ", "[", "]"),
        ("y = ", "{1:", "}"),
        ("y = 1", "+1", ""),
        ("y = 1", "**1", ""),
        ("y = a", ".b", ""),
        ("y = f", "()", ""),
        ("y = f", "[0]", ""),
        ("y = ", "-", ""),
        ("y = ", "not ", ""),
        ("y = ", "lambda a, b: ", ""),
        ("y = ", "1 if a else ", ""),
        ("y = ", "'a' ", ""),
        ("y = ", "a and ", ""),
        ("y = [x ", "for a, b in c ", ""),
        ("if a: pass\n", "elif b: pass\n", ""),
        ("y = ", "f'{", "}'"),
        ("y = f'{x:", "{x:", "}"),
        ("match x:\n case ", "[", "]"),
        ("match x:\n case ", "(", ")"),
        ("y = ", "(a:=", ")"),
        ("y = x", "[a:b, ", "]"),
        ("@", "a.", ""),
    ],
)
def test_no_depth_ends_the_process(before: str, repeated: str, after: str, count: int) -> None:
    source = f"{NEWER}{before}{repeated * count}{after * count}".encode()
    try:
        parse(source, "m.py")
    except ConfigError as error:
        assert error.message.startswith("failed to parse Python source: ")


def test_long_lists_are_not_deep() -> None:
    rows = ",\n".join(f'    "{i}": [-1.5, (a.b.c({i}), "{{"), lambda x, y: x + y]' for i in range(3_000))
    tree = parse(f"{NEWER}D = {{\n{rows}\n}}\n".encode(), "m.py").tree
    assert len(tree.body) == 2


def test_a_source_that_is_huge_is_refused() -> None:
    error = refused(b"#" * (MAX_SOURCE + 1))
    assert "8 MiB" in error.message
    assert error.hint


def test_places_of_a_source_in_another_encoding_are_counted_in_utf_8() -> None:
    raw = "# coding: latin-1\r\né, x = 1, [2]\r\n".encode("latin-1")
    source = parse(raw, "m.py")
    assert source.data.decode() == "# coding: latin-1\né, x = 1, [2]\n"
    last = next(node for node in ast.walk(source.tree) if isinstance(node, ast.List))
    assert ast.get_source_segment(source.data.decode(), last) == "[2]"


@pytest.mark.parametrize("coding", ["no-such", "rot13", "hex", "idna", "punycode"])
def test_an_encoding_that_is_none_is_refused(coding: str) -> None:
    assert "encoding" in refused(f"# coding: {coding}\nx = 1\n").message


def test_bytes_that_are_not_the_encoding_are_refused_with_their_line() -> None:
    error = refused(b"x = 1\ny = '\xff'\n")
    assert error.where == "m.py:2"
    assert "utf-8" in error.message


def test_an_expression_is_read_alone() -> None:
    assert ast.dump(parse_expression("list[int] # why")) == ast.dump(ast.parse("list[int]", mode="eval").body)
    for wrong in ("x = 1", "1)(2", "", "1\n2", "x; y"):
        with pytest.raises(SyntaxError):
            parse_expression(wrong)


def test_an_unknown_python_is_taken_for_the_newest() -> None:
    assert grammar.minor_version("") == grammar.NEWEST
    assert grammar.minor_version("3.12.3") == 12
