"""What the client puts on the wire: byte chunks of the session, the solve message, the words about steps."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cogkit._proto import control_pb2, ops_pb2, policy_pb2
from cogkit.buildkit import CacheEntry, Export, SolveError, SolveRequest, SolveResult, SolveStatus
from cogkit.buildkit.connect.private_socket import Bridge
from cogkit.buildkit.identity import new_id
from cogkit.buildkit.solve import _cache_opts, _check, _Seen, solve_message
from cogkit.buildkit.status import Instant, Vertex, VertexLog
from cogkit.errors import UsageError

NOW = Instant.at(1)


def test_ids_have_buildkits_form() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 25 and each.isascii() and each.isalnum() and each == each.lower() for each in ids)


def test_the_first_export_is_also_there_in_the_old_form() -> None:
    request = SolveRequest("dockerfile.v0", exports=(Export("image", {"name": "a"}), Export("image", {"name": "b"})))
    message = solve_message(request, "ref", "session", {})
    assert [(each.Type, dict(each.Attrs)) for each in message.Exporters] == [
        ("image", {"name": "a"}),
        ("image", {"name": "b"}),
    ]
    assert (message.ExporterDeprecated, dict(message.ExporterAttrsDeprecated)) == ("image", {"name": "a"})


def test_everything_of_a_request_is_in_the_message() -> None:
    definition = ops_pb2.Definition(ops=[b"x"])
    policy = policy_pb2.Policy(version=1)
    request = SolveRequest(
        frontend_attrs={"target": "t"},
        definition=definition.SerializeToString(),
        frontend_inputs={"base": definition.SerializeToString()},
        cache_exports=(CacheEntry("inline"),),
        cache_imports=(CacheEntry("registry", {"ref": "r"}),),
        entitlements=("network.host",),
        source_policy=policy.SerializeToString(),
        internal=True,
    )
    assert solve_message(request, "ref", "session", {}) == control_pb2.SolveRequest(
        Ref="ref",
        Session="session",
        FrontendAttrs={"target": "t"},
        Definition=definition,
        FrontendInputs={"base": definition},
        Cache=control_pb2.CacheOptions(
            Exports=[control_pb2.CacheOptionsEntry(Type="inline")],
            Imports=[control_pb2.CacheOptionsEntry(Type="registry", Attrs={"ref": "r"})],
        ),
        Entitlements=["network.host"],
        SourcePolicy=policy,
        Internal=True,
    )


def test_frontends_hear_of_cache_imports_in_gos_json() -> None:
    imports = (CacheEntry("registry", {"ref": "r", "a": "b"}), CacheEntry("gha"))
    opts = _cache_opts(SolveRequest("dockerfile.v0", cache_imports=imports), is_gateway=False)
    assert opts == {"cache-imports": '[{"Type":"registry","Attrs":{"a":"b","ref":"r"}},{"Type":"gha"}]'}
    assert _cache_opts(SolveRequest(cache_imports=imports), is_gateway=True) == opts
    assert _cache_opts(SolveRequest(definition=b"", cache_imports=imports), is_gateway=False) == {}


def test_a_registry_cache_without_an_image_is_refused() -> None:
    entry = CacheEntry("registry")
    for request in (SolveRequest("f", cache_exports=(entry,)), SolveRequest("f", cache_imports=(entry,))):
        with pytest.raises(UsageError, match="needs the name of an image"):
            _check(request, None)


def test_a_layout_is_written_into_a_folder_and_by_one_output_only() -> None:
    layout = Export("oci", {"tar": "false"}, directory=Path("x"))
    _check(SolveRequest("f", exports=(layout,)), None)
    with pytest.raises(UsageError, match="more than one output is an OCI layout"):
        _check(SolveRequest("f", exports=(layout, layout)), None)
    with pytest.raises(UsageError, match="needs a directory"):
        _check(SolveRequest("f", exports=(Export("oci", {"tar": "false"}),)), None)
    with pytest.raises(UsageError, match="needs a file to write"):
        _check(SolveRequest("f", exports=(Export("oci", directory=Path("x")),)), None)


def _seen(*logs: bytes, error: str = "") -> SolveError:
    seen = _Seen()
    seen.take(SolveStatus(vertexes=(Vertex("sha256:v", "RUN x", started=NOW),)))
    for data in logs:
        seen.take(SolveStatus(logs=(VertexLog("sha256:v", NOW, 1, data),)))
    seen.take(SolveStatus(vertexes=(Vertex("sha256:v", "RUN x", started=NOW, completed=NOW, error=error),)))
    failure = SolveError("it failed")
    seen.describe(failure)
    return failure


def test_the_failed_step_is_found_in_the_status_stream_with_its_last_lines() -> None:
    failure = _seen(b"one\ntw", b"o\r\nthree", error="exit code: 1")
    assert (failure.vertex, failure.vertex_name) == ("sha256:v", "RUN x")
    assert failure.log_tail == ("one", "two", "three")


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_only_the_last_ten_lines_are_kept_however_they_come(chunk: int) -> None:
    text = b"".join(b"line %d\n" % i for i in range(50))
    pieces = [text[start : start + chunk] for start in range(0, len(text), chunk)]
    assert _seen(*pieces, error="e").log_tail == tuple(f"line {i}" for i in range(40, 50))


def test_a_step_that_went_well_is_not_blamed() -> None:
    failure = _seen(b"fine\n")
    assert (failure.vertex, failure.log_tail) == (None, ())


def test_metadata_has_the_json_values_decoded() -> None:
    response = {
        "containerimage.descriptor": "eyJzaXplIjoxfQ==",
        "image.name": "a,b",
        "odd": "bnVsbA==",
        "containerimage.digest": "sha256:1",
    }
    result = SolveResult("ref", response)
    assert result.metadata() == {**response, "containerimage.descriptor": {"size": 1}}
    assert (result.digest, result.image_names) == ("sha256:1", ("a", "b"))
    assert json.dumps(result.metadata())
    assert (SolveResult("ref").digest, SolveResult("ref").image_names) == (None, ())


def test_a_bridge_copies_both_ways_and_leaves_no_folder() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    async def run() -> Path:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        bridge = await Bridge.open(lambda: asyncio.open_connection("127.0.0.1", port))
        path = bridge.grpc_target.removeprefix("unix:")
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.close()
        await bridge.close()
        server.close()
        return Path(path).parent

    assert not asyncio.run(run()).exists()


def test_a_bridge_to_nowhere_closes_the_connection() -> None:
    async def nowhere() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionRefusedError

    async def run() -> None:
        bridge = await Bridge.open(nowhere)
        reader, writer = await asyncio.open_unix_connection(bridge.grpc_target.removeprefix("unix:"))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await bridge.close()

    asyncio.run(run())


def test_naming_the_library_does_not_load_grpc() -> None:
    script = (
        "import sys, cogkit.buildkit as b\n"
        "b.Address.parse('tcp://a:1'); b.SolveRequest(); b.TlsConfig(); b.SolveStatus(); b.SolveError('x')\n"
        "assert set(dir(b)) == set(b.__all__)\n"
        "loaded = [name for name in ('grpc', 'google.protobuf') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
        "for name in b.__all__: getattr(b, name)\n"
        "assert 'grpc' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
