"""States of definitions.  What they are marshalled to again is compared with Go's in ``tests/conformance``."""

from __future__ import annotations

import pytest

from cogkit.buildkit import llb
from cogkit.errors import UsageError


def test_a_state_of_a_definition_marshals_to_the_same() -> None:
    source = llb.SourceMap("x", b"one\n", state=llb.image("alpine"))
    base = llb.image("busybox", name="base", locations=[source.lines(1)])
    made = base.run(["x"], mounts=[llb.BindMount("/out")], ignore_cache=True)
    definition = llb.merge([made, made.file(llb.mkdir("/a"))]).marshal()
    assert llb.state_of(definition).marshal() == definition
    assert llb.state_of(bytes(definition)).marshal(platform="linux/s390x") == definition
    assert llb.state_of(llb.Definition()).output is None


def test_one_can_go_on_from_a_definition() -> None:
    out = llb.image("busybox").run(["x"], mounts=[llb.BindMount("/out")]).get_mount("/out").marshal()
    more = llb.scratch().file(llb.copy(llb.state_of(out), "a", "b")).marshal()
    assert more.ops[: len(out.ops) - 1] == out.ops[:-1]
    assert more.inputs()[-2] == ((out.head, 1),)


def test_incomplete_definitions_are_refused() -> None:
    whole = llb.image("busybox").run(["x"]).marshal()
    image, run, result = whole.ops
    for ops, metadata, message in (
        ((run, result), whole.metadata, "but not its input"),
        (whole.ops, {}, "but not its metadata"),
        ((image, result), whole.metadata, "names a result that it does not have"),
        ((image,), whole.metadata, "does not name one result"),
    ):
        with pytest.raises(UsageError, match=message):
            llb.state_of(llb.Definition(ops, metadata))
    places = llb.Sources(locations={whole.digests[0]: (llb.Location(3),)})
    with pytest.raises(UsageError, match="no source file 3"):
        llb.state_of(llb.Definition(whole.ops, whole.metadata, places))
