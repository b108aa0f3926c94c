"""`cogkit.fast_dataclass.dataclass` makes the classes that the standard library makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cogkit import fast_dataclass

SOURCES = Path(fast_dataclass.__file__).parent

Decorator = Callable[..., Callable[[type], Any]]


def made(cls: Any) -> bool:
    """Whether a class went the short way."""
    return bool(cls.__setattr__ is fast_dataclass._setattr)


@fast_dataclass.dataclass(frozen=True, slots=True)
class Ours:
    """A record."""

    name: str
    size: int = 0
    tags: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False)
    kinds: ClassVar[tuple[str, ...]] = ("a", "b")

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("negative")

    @property
    def twice(self) -> int:
        return 2 * self.size


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """A record."""

    name: str
    size: int = 0
    tags: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    secret: str = field(default="", repr=False)
    kinds: ClassVar[tuple[str, ...]] = ("a", "b")

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("negative")

    @property
    def twice(self) -> int:
        return 2 * self.size


@fast_dataclass.dataclass(frozen=True, slots=True)
class One:
    value: Any


@fast_dataclass.dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    first: int = 1
    second: int


@fast_dataclass.dataclass(frozen=True, slots=True)
class Empty:
    """Nothing."""


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("a",), {}),
    (("a", 3), {}),
    (("a",), {"size": 3, "secret": "s"}),
    (("a", 1, ("t",), ["n"], "s"), {}),
]


def test_the_short_way_is_taken() -> None:
    assert all(map(made, (Ours, One, Named, Empty)))
    assert not made(Theirs)


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_instances_are_made_shown_and_copied_alike(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ours, theirs = Ours(*args, **kwargs), Theirs(*args, **kwargs)
    assert repr(ours).replace("Ours", "Theirs") == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert ours.twice == theirs.twice
    for again in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), dataclasses.replace(ours)):
        assert again == ours and again is not ours
    changed = dataclasses.replace(ours, name="other")
    assert changed.name == "other" and changed != ours


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), (("a", 1, 2, 3, 4, 5), {}), (("a",), {"what": 1})])
def test_wrong_arguments_are_refused_in_the_same_words(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    said = []
    for cls in (Ours, Theirs):
        with pytest.raises(TypeError) as caught:
            cls(*args, **kwargs)
        said.append(str(caught.value).split("__init__()")[1])
    assert said[0] == said[1].replace("self", "_self")


def test_a_default_factory_is_called_for_each_instance() -> None:
    assert Ours("a").notes is not Ours("a").notes


def test_arguments_that_must_be_named_must_be_named() -> None:
    assert Named(second=2) == Named(second=2, first=1)
    named: Any = Named
    assert named.__match_args__ == ()
    for args in ((1, 2), ()):
        with pytest.raises(TypeError):
            named(*args)


def test_post_init_is_called() -> None:
    with pytest.raises(ValueError, match="negative"):
        Ours("a", -1)


def test_equality_is_that_of_the_class_and_the_fields() -> None:
    assert One(1) == One(1) != One(2)
    other: object = Theirs("a")
    assert One(1) != other
    assert One((1,)) != One(1)
    assert Empty() == Empty()
    assert hash(One(1)) == hash(One(1)) and hash(Empty()) == hash(Empty())
    assert len({One(1), One(1), One("1")}) == 2
    not_itself = float("nan")
    assert One(not_itself) == One(not_itself)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours("a"))


@pytest.mark.parametrize("instance", [Ours("a"), Theirs("a")])
def test_instances_are_frozen_and_have_slots(instance: Any) -> None:
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'name'"):
        instance.name = 1
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'name'"):
        del instance.name
    assert not hasattr(instance, "__dict__")


def test_instances_match_patterns_by_position() -> None:
    assert Ours.__match_args__ == Theirs.__match_args__
    match Ours("a", 2):
        case Ours(name, size):
            assert (name, size) == ("a", 2)


def test_an_instance_that_holds_itself_can_be_shown() -> None:
    held: list[Any] = []
    instance = One(held)
    held.append(instance)
    assert repr(instance) == "One(value=[...])"


def test_a_class_that_is_anything_but_plain_is_the_standard_librarys() -> None:
    plain = fast_dataclass.dataclass(frozen=True, slots=True)

    class WithRepr:
        x: int

        def __repr__(self) -> str:
            return "own"

    class WithEq:
        x: int

        def __eq__(self, other: object) -> bool:
            return True

    class WithInit:
        x: InitVar[int]

    class WithHiddenField:
        x: int = field(default=1, init=False)

    class WithoutComparison:
        x: int = field(default=1, compare=False)

    class Heir(Theirs):
        y: int = 1

    for cls in (WithEq, WithInit, WithHiddenField, WithoutComparison, Heir):
        assert not made(plain(cls))
    for settings in ({}, {"frozen": True}, {"slots": True}, {"frozen": True, "slots": True, "order": True}):
        assert not made(fast_dataclass.dataclass(**settings)(type("Plain", (), {"__annotations__": {"x": "int"}})))
    shown: Any = plain(WithRepr)
    assert not made(shown) and repr(shown(1)) == "own"


def test_an_heir_must_be_frozen_too() -> None:
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):

        @fast_dataclass.dataclass
        class Heir(Ours):  # type: ignore[misc]
            more: int = 1


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_every_module_takes_the_cheap_one(path: Path) -> None:
    taken = re.findall(r"^from dataclasses import (.*)$", path.read_text(), re.MULTILINE)
    assert path == SOURCES / "fast_dataclass.py" or "dataclass" not in re.findall(r"\w+", " ".join(taken))
