"""A process on the builder that gets devices: a build step, because containers of the gateway take none.

The step has no input, output, terminal or signals; who starts one reaches it through a socket mount.  It is never
taken from the cache, and what it writes stays in the cache only if its process ends with 0.  This file must not know
what runs in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cogkit._proto import ops_pb2
from cogkit.buildkit.gateway.containers import Command, Mount, Network
from cogkit.buildkit.gateway.llb_bridge import Gateway, Ref
from cogkit.buildkit.identity import new_id


def definition(
    command: Command,
    mounts: Sequence[tuple[Mount, Ref | None]],
    devices: Sequence[str],
    *,
    network: Network = Network.DEFAULT,
    hosts: Mapping[str, str] | None = None,
) -> bytes:
    """Marshalled LLB of the step.

    Args:
        command: What to run.
        mounts: Its mounts as for a container, each with the filesystem that it is of.
        devices: CDI names, such as ``nvidia.com/gpu=all``.
        network: Its network.
        hosts: Additional names, with their addresses.
    """
    made = ops_pb2.Definition()
    known: set[bytes] = set()
    inputs: list[ops_pb2.Input] = []
    wanted: list[ops_pb2.Mount] = []
    for mount, ref in mounts:
        message = ops_pb2.Mount()
        message.CopyFrom(mount.message)
        message.resultID = ""
        # A filesystem without an output is read-only; what is written is kept only if the step ends well.
        message.output = 0 if message.dest == "/" else -1
        if ref is not None:
            message.input = len(inputs)
            inputs.append(_merge(made, known, ref))
        wanted.append(message)
    step = ops_pb2.Op(
        inputs=inputs,
        exec=ops_pb2.ExecOp(
            meta=ops_pb2.Meta(
                args=command.args,
                # A step with another variable is another step: this one has never run before.
                env=[*(f"{name}={value}" for name, value in command.env.items()), f"COGKIT_RUN={new_id()}"],
                cwd=command.cwd,
                user=command.user,
                extraHosts=[ops_pb2.HostIP(Host=name, IP=address) for name, address in (hosts or {}).items()],
            ),
            mounts=wanted,
            network=ops_pb2.NetMode.Name(network.value),
            cdiDevices=[ops_pb2.CDIDevice(name=name) for name in devices],
        ),
    ).SerializeToString()
    digest = _digest(step)
    made.ops.append(step)
    made.ops.append(ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest)]).SerializeToString())
    made.metadata[digest].ignore_cache = True
    made.metadata[digest].description["llb.customname"] = "run with devices"
    return made.SerializeToString()


async def run(gateway: Gateway, marshalled: bytes) -> None:
    """Run the step to its end.

    Raises:
        SolveError: it failed, or there is no such device.
    """
    await gateway.solve(definition=marshalled, evaluate=True)


def _merge(made: ops_pb2.Definition, known: set[bytes], ref: Ref) -> ops_pb2.Input:
    """Add what a filesystem comes from, and say which output of it that is."""
    own = ops_pb2.Definition.FromString(ref.definition)
    *ops, head = own.ops
    for op in ops:
        if op not in known:
            known.add(op)
            made.ops.append(op)
    for digest, metadata in own.metadata.items():
        made.metadata[digest].CopyFrom(metadata)
    return ops_pb2.Op.FromString(head).inputs[0]


def _digest(op: bytes) -> str:
    return f"sha256:{hashlib.sha256(op).hexdigest()}"
