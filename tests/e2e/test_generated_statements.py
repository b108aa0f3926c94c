"""What the frontend reads back from single generated statements: the very paths and values that were put in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.request import SolveRequest
from cogkit.dockerfile.statements import copy, environment
from tests.real.buildkitd import Buildkitd

NAMES = (
    *("plain.txt", "two words.txt", "ключ", "it's", 'say "hi"', "$HOME", "${HOME}", "[ab]", "<<EOF"),
    *("a#b", "--from=x", "-", "~", "{a,b}", "!not", "a!b", "x'$\"[!] y"),
)
VALUES = {
    **{"EMPTY": "", "SPACED": "two words", "APOSTROPHE": "it's", "INCHES": '5" disk', "END": "C:\\dir\\ x\\"},
    **{"JSON": '{"a": 1}', "HASH": "#x y", "EQUALS": "a=b c=d", "LEADING": " x ", "TAB": "a\tb", "HEREDOC": "a <<EOF"},
}
AS_WRITTEN = {"QUOTED": '"two words"', "SINGLE": "'a b'", "ESCAPED": "a\\ b", "PATH_TOO": "$PATH:/opt/bin"}


def test_every_name_is_copied_as_itself_and_nothing_else(buildkitd: Buildkitd, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in (*NAMES, "acb", "a", "b", "aXXb"):
        (context / name).write_text(name)
    lines = [
        "FROM scratch",
        *(copy([name], f"/out/{number}/{name}", stage="named") for number, name in enumerate(NAMES)),
    ]
    result = asyncio.run(_build(buildkitd.address, tmp_path, "\n".join(lines), context))
    assert {path: content for path, (content, _) in result.items() if path != "env"} == {
        f"{number}/{name}": name for number, name in enumerate(NAMES)
    }


def test_values_come_out_as_they_went_in(buildkitd: Buildkitd, tmp_path: Path) -> None:
    text = f"FROM busybox\n{environment(VALUES | AS_WRITTEN)}\n"
    (_, found), *_ = asyncio.run(_build(buildkitd.address, tmp_path, text, tmp_path)).values()
    assert {name: found[name] for name in VALUES} == VALUES
    assert found["QUOTED"] == "two words"
    assert found["SINGLE"] == found["ESCAPED"] == "a b"
    assert found["PATH_TOO"] == f"{found['PATH']}:/opt/bin"


async def _build(
    address: str, folder: Path, dockerfile: str, context: Path
) -> dict[str, tuple[str, Mapping[str, str]]]:
    """Files below /out as ``folder/name``, with the image's environment, which "env" stands for when there are none."""
    (folder / "Dockerfile").write_text(dockerfile)
    found: dict[str, tuple[str, Mapping[str, str]]] = {}

    async def build(gateway: Gateway) -> GatewayResult:
        result = await gateway.solve("dockerfile.v0", {"context:named": "local:named"}, evaluate=True)
        config = json.loads(result.metadata["containerimage.config"])["config"]
        variables = dict(entry.split("=", 1) for entry in config.get("Env") or ())
        found["env"] = ("", variables)
        if "COPY" in dockerfile:
            assert result.ref is not None
            for number in await result.ref.read_dir("/out"):
                for file in await result.ref.read_dir(f"/out/{number.path}"):
                    content = await result.ref.read_file(f"/out/{number.path}/{file.path}")
                    found[f"{number.path}/{file.path}"] = (content.decode(), variables)
        return GatewayResult()

    mounts = (
        LocalMount("named", context),
        LocalMount("dockerfile", folder, only=frozenset({"Dockerfile"})),
    )
    async with await AsyncClient.connect(address) as client:
        await client.solve(SolveRequest(mounts=mounts), build=build)
    return found
