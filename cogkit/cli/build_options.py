"""The flags of commands that build, each on every such command, and the one way from them to `BuildOptions`.

A bundle is a class whose annotated attributes are flags.  A command takes one bundle as its first argument; `takes`
spells the bundle's flags out in the signature that typer reads, so no command can forget one.  What a flag looks like
is in `cogkit.cli.flags`, what its value means in `cogkit.building`; this file must not decide either.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from cogkit.cli import flags as f
from cogkit.cli.text_values import check_text
from cogkit.errors import UsageError
from cogkit.project.names import EPOCH_OF_CONTEXT, SOURCE_DATE_EPOCH

if TYPE_CHECKING:
    from pathlib import Path

    from cogkit.building.options import BuildOptions, CogOptions
    from cogkit.buildkit.connect.address import TlsConfig

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Flags:
    """A bundle: its annotated attributes are flags, their values the defaults."""

    def __init__(self, **given: object) -> None:
        unknown = given.keys() - self.hints().keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        vars(self).update(given)

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The flags in the order of the help: each bundle after those that it adds to."""
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            own = vars(base).get("__annotations__", {})
            hints = get_type_hints(base, vars(sys.modules[base.__module__]), include_extras=True) if own else {}
            found.update((name, hints[name]) for name in own)
        return found


_Flags = TypeVar("_Flags", bound=Flags)


def takes(
    bundle: type[_Flags], *, without: Iterable[str] = ()
) -> Callable[[Callable[Concatenate[_Flags, _Params], _Result]], Callable[..., _Result]]:
    """Let a command take the flags of a bundle, which it gets as its first argument.

    Args:
        bundle: The class.
        without: Names of flags that the command leaves at their defaults: those that mean nothing to it.
    """
    hints = bundle.hints()
    left_out = set(without)
    assert left_out <= hints.keys(), left_out - hints.keys()

    def decorate(command: Callable[Concatenate[_Flags, _Params], _Result]) -> Callable[..., _Result]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        spelt = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(bundle, name), annotation=hint)
            for name, hint in hints.items()
            if name not in left_out
        ]
        arguments = [parameter for parameter in own if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
        further = [parameter for parameter in own if parameter.kind is inspect.Parameter.KEYWORD_ONLY]

        def invoke(**values: Any) -> _Result:
            given = {parameter.name: values.pop(parameter.name) for parameter in spelt if parameter.name in values}
            return command(bundle(**given), **values)  # type: ignore[call-arg]

        invoke.__doc__ = command.__doc__
        invoke.__name__ = command.__name__
        parameters = [*arguments, *further, *spelt]
        invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return invoke

    return decorate


class ShownFlags(Flags):
    """How a command looks."""

    progress: f.ProgressFlag = f.ProgressMode.AUTO
    quiet: f.QuietFlag = False
    no_color: f.NoColorFlag = False
    debug: f.DebugFlag = False

    @property
    def mode(self) -> f.ProgressMode:
        """What is shown while it runs."""
        return f.ProgressMode.QUIET if self.quiet else self.progress

    @property
    def talkative(self) -> bool:
        """Whether the user wants to be told in words what goes on."""
        return self.mode not in (f.ProgressMode.QUIET, f.ProgressMode.RAWJSON, f.ProgressMode.NONE)


TLS_FILES = (("ca.pem", "ca.crt"), ("cert.pem", "tls.crt"), ("key.pem", "tls.key"))
"""What a folder of TLS files holds, as buildctl looks for it (``cmd/buildctl/common``)."""


def _file_of(folder: Path, names: tuple[str, str]) -> Path:
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        raise UsageError(
            f"--tlsdir {folder} has neither {names[0]} nor {names[1]}",
            hint="give the files one by one: --tlscacert, --tlscert and --tlskey",
        )
    return found


class BuilderFlags(Flags):
    """Which builder, and how it is reached."""

    addr: f.AddrFlag = None
    builder: f.BuilderFlag = None
    tlscacert: f.TlsCaFlag = None
    tlscert: f.TlsCertFlag = None
    tlskey: f.TlsKeyFlag = None
    tlsdir: f.TlsDirFlag = None
    tlsservername: f.TlsServerNameFlag = None
    compress: f.CompressFlag = f.CompressMode.AUTO

    def tls(self) -> TlsConfig | None:
        """What the flags of a TLS connection say together; None without any.

        Raises:
            UsageError: ``--tlsdir`` is given beside a file, or lacks one.
        """
        if self.tlsdir is not None and (self.tlscacert or self.tlscert or self.tlskey):
            raise UsageError(
                "--tlsdir is given beside --tlscacert, --tlscert or --tlskey", hint="give the folder or the files"
            )
        if not (self.tlsdir or self.tlscacert or self.tlscert or self.tlskey or self.tlsservername):
            return None
        from cogkit.buildkit.connect.address import TlsConfig

        if self.tlsdir is not None:
            ca, cert, key = (_file_of(self.tlsdir, names) for names in TLS_FILES)
            return TlsConfig(ca=ca, cert=cert, key=key, server_name=self.tlsservername)
        return TlsConfig(ca=self.tlscacert, cert=self.tlscert, key=self.tlskey, server_name=self.tlsservername)


class LockFlags(Flags):
    """How the project's lock is waited for."""

    lock_timeout: f.LockTimeoutFlag = None


class ResultFlags(Flags):
    """Where the result goes."""

    output: f.OutputFlag = None
    push: f.PushFlag = False
    load: f.LoadFlag = False
    load_into: f.LoadIntoFlag = None
    metadata_file: f.MetadataFileFlag = None
    iidfile: f.IidFileFlag = None
    ref_file: f.RefFileFlag = None

    def engine_to_load(self) -> str | None:
        """Where the image is loaded; None for nowhere."""
        if self.load_into is not None:
            return self.load_into.value
        return "auto" if self.load else None


class ImageFlags(Flags):
    """What the image is like."""

    tag: f.TagFlag = None
    label: f.LabelFlag = None
    annotation: f.AnnotationFlag = None
    platform: f.PlatformFlag = None
    timestamp: f.TimestampFlag = None
    sbom: f.SbomFlag = None
    provenance: f.ProvenanceFlag = None
    attest: f.AttestFlag = None


class CogFlags(Flags):
    """How a Cog project becomes a Dockerfile."""

    uv_image: f.UvImageFlag = None
    pull_weights: f.PullWeightsFlag = False
    separate_weights: f.SeparateWeightsFlag = False
    weights_path: f.WeightsPathFlag = None
    use_cog_base_image: f.UseCogBaseImageFlag = None
    use_cuda_base_image: f.UseCudaBaseImageFlag = None
    openapi_schema: f.OpenApiSchemaFlag = None
    schema: f.SchemaFlag = f.SchemaFrom.AUTO
    skip_schema_validation: f.SkipSchemaValidationFlag = False
    strip: f.StripFlag = False
    precompile: f.PrecompileFlag = False
    dockerfile: f.DockerfileFlag = None
    registry: f.RegistryFlag = None

    def cog_options(self) -> CogOptions:
        """The options.

        Raises:
            UsageError: flags that exclude each other, in Cog's words (``pkg/cli/build.go``).
        """
        from cogkit.building.options import CogOptions

        given = {
            "--use-cog-base-image": self.use_cog_base_image,
            "--use-cuda-base-image": self.use_cuda_base_image,
            "--dockerfile": self.dockerfile,
        }
        chosen = [name for name, value in given.items() if value is not None]
        if len(chosen) > 1:
            raise UsageError(
                f"The flags {' and '.join(chosen)} are mutually exclusive: you can only set one of them.",
                hint="each of them says what the image is built from",
            )
        return CogOptions(
            use_cog_base_image=self.use_cog_base_image,
            use_cuda_base_image=self.use_cuda_base_image is not f.CudaBaseImage.FALSE,
            openapi_schema=self.openapi_schema,
            evaluate_schema=self.schema is f.SchemaFrom.AUTO,
            skip_schema_validation=self.skip_schema_validation,
            strip=self.strip,
            precompile=self.precompile,
            separate_weights=self.separate_weights,
            weights_paths=tuple(filter(None, self.weights_path or ())),
            dockerfile=self.dockerfile,
        )


class CacheFlags(Flags):
    """What is taken from earlier builds and left for later ones."""

    no_cache: f.NoCacheFlag = False
    no_cache_filter: f.NoCacheFilterFlag = None
    pull: f.PullFlag = False
    cache_from: f.CacheFromFlag = None
    cache_to: f.CacheToFlag = None


class StepFlags(Flags):
    """What the steps get beyond the context."""

    secret: f.SecretFlag = None
    ssh: f.SshFlag = None
    allow: f.AllowFlag = None
    network: f.NetworkFlag = None
    proxy_network: f.ProxyNetworkFlag = False
    add_host: f.AddHostFlag = None
    ulimit: f.UlimitFlag = None
    shm_size: f.ShmSizeFlag = None
    resource: f.ResourceFlag = None
    cgroup_parent: f.CgroupParentFlag = None


class ProjectFlags(Flags):
    """What is built."""

    context: f.ContextFlag = None
    file: f.FileFlag = None


class FrontendFlags(Flags):
    """What the frontend is told."""

    target: f.TargetFlag = None
    build_arg: f.BuildArgFlag = None
    build_context: f.BuildContextFlag = None
    frontend: f.FrontendFlag = None
    opt: f.OptFlag = None
    local: f.LocalFlag = None
    call: f.CallFlag = None
    check: f.CheckFlag = False
    policy: f.PolicyFlag = None
    source_policy_file: f.SourcePolicyFileFlag = None


class DockerFlags(Flags):
    """Old flags of docker that scripts still carry: taken as docker takes them, and not shown."""

    memory: f.MemoryFlag = None
    memory_swap: f.MemorySwapFlag = None
    cpu_shares: f.CpuSharesFlag = None
    cpu_period: f.CpuPeriodFlag = None
    cpu_quota: f.CpuQuotaFlag = None
    cpuset_cpus: f.CpusetCpusFlag = None
    cpuset_mems: f.CpusetMemsFlag = None
    docker_compress: f.DockerCompressFlag = False
    rm: f.DockerRmFlag = True
    force_rm: f.DockerForceRmFlag = False
    squash: f.DockerSquashFlag = False
    isolation: f.DockerIsolationFlag = None
    security_opt: f.DockerSecurityOptFlag = None

    def as_resources(self) -> list[str]:
        """Those that are `--resource` today."""
        names = ("memory", "memory_swap", "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems")
        given = {name.replace("_", "-"): getattr(self, name) for name in names}
        return [f"{name}={value}" for name, value in given.items() if value is not None]

    def notes(self) -> list[str]:
        """What the user should know of those that do nothing."""
        ignored = {
            "--compress": (self.docker_compress, "what goes to the builder: see --transfer-compression"),
            "--rm=false": (not self.rm, "a builder keeps no containers"),
            "--force-rm": (self.force_rm, "a builder keeps no containers"),
            "--squash": (self.squash, "copy into a last stage FROM scratch instead"),
            "--isolation": (bool(self.isolation), "BuildKit has one kind"),
            "--security-opt": (bool(self.security_opt), "RUN --security=insecure is BuildKit's way"),
        }
        return [f"{flag} does nothing ({why})" for flag, (given, why) in ignored.items() if given]


# Bases are listed from the last group of the help to the first, since the first base comes last in `hints`.
class BuildFlags(
    DockerFlags,
    ShownFlags,
    LockFlags,
    BuilderFlags,
    ResultFlags,
    ImageFlags,
    CogFlags,
    CacheFlags,
    StepFlags,
    FrontendFlags,
    ProjectFlags,
):
    """Every flag of a build; a command that builds takes all of them but those that mean nothing to it."""


def build_options(
    flags: BuildFlags, *, path: str | None = None, environ: Mapping[str, str] = os.environ
) -> BuildOptions:
    """The build that the flags ask for: the only way from a command line to `BuildOptions`.

    Args:
        flags: The flags.
        path: The context given as an argument, which ``--context`` gives too.
        environ: The environment, which some flags stand in for and some rules come from.

    Raises:
        ConfigError, UsageError: a value that cannot be used.
    """
    from cogkit.building import caches, credentials, step_settings, values
    from cogkit.building.options import BuildOptions
    from cogkit.building.policy import parse_policies
    from cogkit.building.source_policy import read_source_policy

    question = "check" if flags.check else flags.call
    allowed, allow_local_delete = credentials.parse_entitlements(flags.allow or ())
    build_args = values.parse_pairs(flags.build_arg or (), flag="--build-arg", environ=environ)
    if flags.timestamp is None and environ.get(SOURCE_DATE_EPOCH) == EPOCH_OF_CONTEXT:
        build_args = {SOURCE_DATE_EPOCH: EPOCH_OF_CONTEXT, **build_args}
    exported_caches = caches.parse_caches(flags.cache_to or (), flag=caches.CACHE_TO)
    options = BuildOptions(
        context=choose_context(path, flags.context),
        file=flags.file,
        tags=values.parse_tags(flags.tag or ()),
        target=flags.target,
        build_args=build_args,
        labels=values.parse_pairs(flags.label or (), flag="--label"),
        annotations=values.parse_annotations(flags.annotation or ()),
        platforms=values.parse_platforms(flags.platform or _default_platforms(environ)),
        no_cache=flags.no_cache,
        pull=flags.pull,
        build_contexts=values.parse_build_contexts(flags.build_context or ()),
        outputs=values.parse_outputs(flags.output or ()),
        push=flags.push,
        load=flags.engine_to_load(),
        metadata_file=flags.metadata_file,
        iidfile=flags.iidfile,
        ref_file=flags.ref_file,
        address=flags.addr,
        builder=flags.builder,
        tls=flags.tls(),
        compress=flags.compress.choice,
        lock_timeout=flags.lock_timeout,
        uv_image=None if flags.uv_image is None else values.parse_image(flags.uv_image, flag="--uv-image"),
        secrets=credentials.parse_secrets(flags.secret or ()),
        ssh=credentials.parse_all_ssh(flags.ssh or ()),
        allow=allowed,
        allow_local_delete=allow_local_delete,
        cache_from=caches.with_credentials(caches.parse_caches(flags.cache_from or (), flag=caches.CACHE_FROM)),
        cache_to=caches.with_credentials(caches.with_inline_cache(exported_caches, build_args)),
        no_cache_filter=tuple(filter(None, flags.no_cache_filter or ())),
        attestations=step_settings.parse_attestations(flags.attest or (), sbom=flags.sbom, provenance=flags.provenance),
        network=step_settings.parse_network(flags.network),
        hosts=step_settings.parse_hosts(flags.add_host or ()),
        ulimits=step_settings.parse_ulimits(flags.ulimit or ()),
        shm_size=step_settings.parse_size(flags.shm_size, flag="--shm-size"),
        cgroup_parent=flags.cgroup_parent,
        resources=step_settings.parse_resources((*flags.as_resources(), *(flags.resource or ()))),
        proxy_network=flags.proxy_network,
        policies_disabled=parse_policies(flags.policy or ()),
        source_policy=read_source_policy(environ, flags.source_policy_file),
        call=_parse_call(question) if question else None,
        frontend=flags.frontend,
        frontend_opts=values.parse_pairs(flags.opt or (), flag="--opt"),
        frontend_mounts=values.parse_local_folders(flags.local or ()),
        timestamp=timestamp_of(flags.timestamp, build_args, environ),
        cog=flags.cog_options(),
    )
    check_text(options)
    return options


def _default_platforms(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What stands in for ``--platform``, as for buildx (``commands/build.go``)."""
    platform = environ.get("DOCKER_DEFAULT_PLATFORM", "")
    return (platform,) if platform else ()


def _parse_call(question: str) -> Any:
    from cogkit.building.call import parse_call

    return parse_call(question)


def choose_context(path: str | None, context: str | None) -> str | None:
    """The context named by ``[PATH]`` or ``--context``; None without either."""
    if path is not None and context is not None:
        raise UsageError(f"two contexts to build: {path} and --context {context}", hint="give one of them")
    return path if path is not None else context


def timestamp_of(
    flag: int | None, build_args: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> int | None:
    """The time that stands for all: ``--timestamp``, else ``SOURCE_DATE_EPOCH`` of the environment.

    A build argument of that name comes before the environment, and does what it does with buildx: it is not our
    timestamp.

    Raises:
        UsageError: the variable is not a number of seconds.
    """
    if flag is not None:
        return flag if flag >= 0 else None
    text = environ.get(SOURCE_DATE_EPOCH, "")
    if not text or SOURCE_DATE_EPOCH in build_args or text == EPOCH_OF_CONTEXT:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"{SOURCE_DATE_EPOCH}={text} is not a number of seconds since 1970",
            hint=f"for example {SOURCE_DATE_EPOCH}=$(git log -1 --format=%ct)",
        )
    return int(text)
