"""Definitions: read, written, drawn."""

from __future__ import annotations

import pytest

from cogkit._proto import ops_pb2
from cogkit.buildkit import llb
from cogkit.errors import UsageError


def example() -> llb.State:
    source = llb.SourceMap("build.py", "one\ntwo\n", language="Python", state=llb.local("code"))
    base = llb.image("busybox:1", name="base", ignore_cache=True, locations=[source.lines(1, 2)])
    made = base.run(
        ["cc", "-o", "/out/x"],
        mounts=[llb.BindMount("/src", llb.local("context")), llb.BindMount("/out")],
        export_cache=False,
        progress_group=llb.ProgressGroup("g", "group", True),
        resources=llb.LinuxResources(memory=1 << 30, memory_swap=-1, cpuset_cpus="0-1"),
    )
    return llb.merge([llb.diff(base, made), base.file(llb.copy(made.get_mount("/out"), "x", "/x").rm("/y"))])


def test_reading_what_was_written_gives_the_same() -> None:
    definition = example().marshal()
    again = llb.Definition.from_bytes(bytes(definition))
    assert again == definition and hash(again) == hash(definition)
    assert again.ops == definition.ops
    assert again.metadata.keys() == definition.metadata.keys()
    base = again.metadata[again.digests[0]]
    assert base.ignore_cache and base.description == {"llb.customname": "base"}
    assert again.sources is not None
    (file,) = again.sources.files
    assert (file.filename, file.data, file.language) == ("build.py", b"one\ntwo\n", "Python")
    assert file.definition is not None and len(file.definition.ops) == 2
    assert again.sources.locations[again.digests[0]] == (llb.Location(0, (llb.Range(1, 2),)),)


def test_protobuf_reads_the_same() -> None:
    definition = example().marshal()
    message = ops_pb2.Definition.FromString(bytes(definition))
    assert tuple(message.ops) == definition.ops
    # Its order of maps is not Go's.
    assert len(message.SerializeToString()) == len(bytes(definition))


def test_the_last_op_names_the_result() -> None:
    definition = example().marshal()
    assert definition.head == definition.digests[-2]
    assert repr(definition) == f"<Definition of {len(definition.ops)} ops, {definition.head}>"


def test_a_source_map_takes_a_marshalled_definition() -> None:
    inner = llb.image("alpine").marshal()
    location = llb.SourceMap("x", b"", definition=inner).at()
    sources = llb.image("busybox", locations=[location]).marshal().sources
    assert sources is not None and sources.files[0].definition == inner


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05abc", b"\x12\x04\x0a\x02\xff\xfe", b"\x0a\x02\x0a\x09", b"\x0b"])
def test_bytes_that_are_not_a_definition_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="the bytes are not a marshalled LLB definition"):
        llb.Definition.from_bytes(data)


def test_definitions_within_definitions_have_a_limit() -> None:
    definition = llb.Definition()
    for _ in range(50):
        definition = llb.Definition(sources=llb.Sources((llb.SourceFile("x", definition=definition),)))
    with pytest.raises(UsageError, match="without end"):
        llb.Definition.from_bytes(bytes(definition))


def test_the_drawing_is_that_of_buildctl() -> None:
    lines = example().marshal(local_unique_id="unique").dot().splitlines()
    assert lines[0] == "digraph {" and lines[-1] == "}"
    text = "\n".join(lines)
    assert '[label="docker-image://docker.io/library/busybox:1" shape="ellipse"];' in text
    assert '[label="cc -o /out/x" shape="box"];' in text
    assert '[label="copy{src=/x, dest=/x},rm{path=/y}" shape="note"];' in text
    assert '[label="merge" shape="invtriangle"];' in text
    assert '[label="diff" shape="doublecircle"];' in text
    assert '[label="/src"];' in text
