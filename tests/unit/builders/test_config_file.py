"""The user's list of builders: what it says, how it is changed, and what is wrong in it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cogkit.builders import config_file
from cogkit.builders.config_file import add_builder, add_node, choose_builder, config_path, line_of, read_builders
from cogkit.builders.config_file import parse_builders as parse
from cogkit.builders.records import DEFAULT, PRIVATE, Builders
from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import ConfigError, UsageError

FARM = """\
# the builders of our team
current = "farm"

[builders.one]
address = "tcp://one.example.com:1234"  # the old one
tls = {ca = "certs/ca.pem", server-name = "builder"}

[builders.farm]
cache = "registry.example.com/cache"

[[builders.farm.nodes]]
name = "a"
address = "tcp://a.example.com:1234"
platforms = ["linux/amd64"]
labels = {gpu = "a100"}
weight = 2

[[builders.farm.nodes]]
name = "b"
address = "unix:///run/b.sock"
max-builds = 4

[private]
idle-minutes = 5
max-used-space = "20%"
"""

TWO_BUILDERS = """\
[builders.a]
address = "unix:///a"

[builders.a]
address = "unix:///b"
"""
TWO_NODES = """\
[[builders.a.nodes]]
name = "x"
address = "unix:///a"
[[builders.a.nodes]]
name = "x"
address = "unix:///b"
"""


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def written(text: str) -> Path:
    path = config_path()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_without_a_file_there_are_no_builders() -> None:
    assert read_builders() == Builders()


def test_builders_nodes_and_settings_are_read(tmp_path: Path) -> None:
    found = parse(FARM, tmp_path / "builders.toml")
    assert found.current == "farm"
    one, farm = found.builders["one"], found.builders["farm"]
    assert (one.nodes[0].name, one.nodes[0].address, one.is_farm) == ("one", "tcp://one.example.com:1234", False)
    assert one.nodes[0].tls is not None
    assert one.nodes[0].tls.ca == tmp_path / "certs/ca.pem"
    assert one.nodes[0].tls.server_name == "builder"
    first, second = farm.nodes
    assert (first.platforms, first.labels, first.weight) == (("linux/amd64",), {"gpu": "a100"}, 2.0)
    assert (second.max_builds, second.weight, farm.cache) == (4, 1.0, "registry.example.com/cache")
    assert (found.private.idle_seconds, found.private.max_used_space) == (300.0, "20%")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("current = ", 1, "this is not TOML"),
        (TWO_BUILDERS, 4, "two builders with the name 'a'"),
        ('[builders.a]\naddress = "host:1234"\n', 2, "has no scheme"),
        ('[builders.a]\naddress = "gopher://host"\n', 2, "unknown scheme"),
        ("[builders.a]\nplatforms = []\n", 1, "'a' has no address"),
        ('[builders.a]\naddress = "unix:///a"\ncolour = "red"\n', 3, "'colour' is not known here"),
        ('[builders.a]\naddress = "unix:///a"\nplatforms = "linux"\n', 3, "not a list of texts"),
        ('[builders.a]\naddress = "unix:///a"\nplatforms = ["linux"]\n', 3, "not a platform"),
        ('[builders.a]\naddress = "unix:///a"\nweight = 0\n', 3, "weight is not a number above 0"),
        ('[builders.a]\naddress = "unix:///a"\nmax-builds = 1.5\n', 3, "max-builds is not a whole number"),
        ('[builders.a]\naddress = "unix:///a"\nlabels = {a = 1}\n', 3, "the label 'a' is not text"),
        ('[builders.a]\naddress = "unix:///a"\n[[builders.a.nodes]]\nname = "x"\n', 2, "no 'address' of its own"),
        (TWO_NODES, 4, "two nodes have the name 'x'"),
        ('[[builders.a.nodes]]\naddress = "unix:///a"\n', 1, "a node needs a name"),
        ('[builders.private]\naddress = "unix:///a"\n', 1, "cannot be a builder's name"),
        ('current = "b"\n', 1, "'b' is not in the list"),
        ('[builders.a]\naddress = "unix:///a"\nanswer-seconds = 0\n', 3, "answer-seconds is not a number above 0"),
        ('[private]\nidle-minutes = "soon"\n', 2, "idle-minutes is not a number"),
        ('[private]\nmax-used-space = "much"\n', 2, "is not a size"),
        ("other = 1\n", 1, "'other' is not known here"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "builders.toml"
    with pytest.raises(ConfigError, match=words) as caught:
        parse(text, path)
    assert caught.value.where is not None
    assert caught.value.where.split(":")[:2] == [str(path), str(line)]
    assert caught.value.hint
    assert exit_code_of(caught.value) == 2


def test_a_list_that_is_not_utf8_is_said() -> None:
    path = written("")
    path.write_bytes(b'current = "\xff"\n')
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_builders()


def test_an_edit_keeps_comments_and_all_else() -> None:
    path = written(FARM)
    add_builder("new", {"address": "unix:///new.sock", "tls": {"ca": "/ca.pem"}}, choose=True)
    text = path.read_text()
    assert "# the builders of our team" in text
    assert "# the old one" in text
    found = read_builders()
    assert found.current == "new"
    assert set(found.builders) == {"one", "farm", "new"}
    before = parse(FARM, path)
    assert found.builders["farm"] == before.builders["farm"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_node_makes_a_farm_of_a_builder() -> None:
    add_builder("team", {"address": "unix:///a.sock", "labels": {"x": "y"}})
    add_node("team", {"name": "second", "address": "unix:///b.sock"})
    add_node("team", {"name": "third", "address": "unix:///c.sock"})
    nodes = read_builders().builders["team"].nodes
    assert [(node.name, node.address) for node in nodes] == [
        ("first", "unix:///a.sock"),
        ("second", "unix:///b.sock"),
        ("third", "unix:///c.sock"),
    ]
    assert nodes[0].labels == {"x": "y"}
    with pytest.raises(UsageError, match="has a node 'third' already"):
        add_node("team", {"name": "third", "address": "unix:///d.sock"})


def test_choosing_and_removing() -> None:
    add_builder("a", {"address": "unix:///a.sock"})
    choose_builder("a")
    assert read_builders().current == "a"
    choose_builder(PRIVATE)
    assert read_builders().current == PRIVATE
    choose_builder(DEFAULT)
    assert read_builders().current is None
    choose_builder("a")
    config_file.remove_builder("a")
    assert read_builders() == Builders()


@pytest.mark.parametrize("name", ["a b", "", "private", "default", "-x", "a/b"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a builder's name"):
        add_builder(name, {"address": "unix:///a.sock"})


def test_names_that_are_not_there_and_those_that_are() -> None:
    add_builder("a", {"address": "unix:///a.sock"})
    with pytest.raises(UsageError, match="there is no builder 'b'"):
        choose_builder("b")
    with pytest.raises(UsageError, match="there is no builder 'b'"):
        config_file.remove_builder("b")
    with pytest.raises(UsageError, match="there is a builder 'a' already"):
        add_builder("a", {"address": "unix:///a.sock"})


def test_a_senseless_entry_is_refused_and_the_list_stays() -> None:
    path = written(FARM)
    with pytest.raises(UsageError, match="weight is not a number above 0"):
        add_builder("bad", {"address": "unix:///a.sock", "weight": -1})
    assert path.read_text() == FARM


def test_a_broken_list_is_not_edited() -> None:
    path = written("current = [")
    with pytest.raises(ConfigError):
        add_builder("a", {"address": "unix:///a.sock"})
    assert path.read_text() == "current = ["


def test_a_list_that_is_a_link_stays_one(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    path = config_path()
    path.parent.mkdir(parents=True)
    path.symlink_to(real)
    add_builder("a", {"address": "unix:///a.sock"})
    assert path.is_symlink()
    assert "unix:///a.sock" in real.read_text()


def test_edits_of_many_at_once_all_count() -> None:
    def add(number: int) -> None:
        add_builder(f"b{number}", {"address": f"unix:///{number}.sock"})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_builders().builders) == {f"b{number}" for number in range(8)}


def test_the_line_of_a_key_is_found() -> None:
    assert line_of(FARM, ("current",)) == 2
    assert line_of(FARM, ("builders", "one", "address")) == 5
    assert line_of(FARM, ("builders", "farm", "nodes", 1, "max-builds")) == 21
    assert line_of(FARM, ("builders", "farm", "nodes", 1, "missing")) == 18
    assert line_of(FARM, ("nothing",)) is None


def test_a_config_folder_that_cannot_be_written_is_said(own_config: Path) -> None:
    own_config.write_text("a file in the place of the folder")
    with pytest.raises(Exception, match=r"cannot be (written|read)") as caught:
        add_builder("a", {"address": "unix:///a.sock"})
    assert os.fspath(own_config) in str(caught.value)
