"""The syntax of the values that flags take, as ``docker buildx build`` reads them.

Each function turns the text of one flag into data of `cogkit.building.options`, and refuses with a `UsageError` that
names the flag, the value and what is allowed.  Facts are from buildx (``util/buildflags``, ``util/platformutil``) and
containerd's ``platforms``.  This file must not open files or connect to anything: whether a folder exists or a builder
can do what is asked is for the plan to find out.
"""

from __future__ import annotations

import os
import platform as machine
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from cogkit.building.options import STDOUT, NamedContext, OutputSpec
from cogkit.building.remote_context import is_remote_url
from cogkit.errors import UsageError
from cogkit.go_bool import go_bool
from cogkit.oci.reference import parse_reference

OUTPUT_TYPES = ("image", "registry", "oci", "docker", "tar", "local", "cacheonly")
STREAM_TYPES = ("oci", "docker", "tar")
REFERENCE_FORM = "[REGISTRY/]REPOSITORY[:TAG]"
PLATFORM_FORM = "OS/ARCH[/VARIANT], for example linux/arm64"
LAYOUT_SCHEME = "oci-layout://"


def csv_fields(flag: str, value: str) -> list[str]:
    """The comma-separated fields of one value, in which a quoted field may hold commas and doubled quotes.

    Raises:
        UsageError: a quote where none may be, or one that is never closed.
    """
    fields: list[str] = []
    rest = re.sub(r"\r?\n\Z", "", value)
    while True:
        if rest.startswith('"'):
            field, rest = _quoted_field(flag, value, rest)
            fields.append(field)
            if not rest:
                return fields
            rest = rest[1:]
            continue
        field, comma, rest = rest.partition(",")
        if '"' in field:
            raise UsageError(
                f"{flag} {value}: a quote inside a field",
                hint="put the whole field in quotes: '\"name=a,b\",push=true'",
            )
        fields.append(field)
        if not comma:
            return fields


def _quoted_field(flag: str, value: str, rest: str) -> tuple[str, str]:
    """Read the quoted field that ``rest`` starts with; returns it and what follows its closing quote."""
    match = re.match(r'"((?:[^"]|"")*)"(?=,|\Z)', rest, re.DOTALL)
    if match is None:
        raise UsageError(
            f"{flag} {value}: a quoted field does not end in a quote",
            hint='a quote inside a quoted field is written ""',
        )
    return match[1].replace('""', '"'), rest[match.end() :]


def parse_bool(flag: str, key: str, value: str) -> bool:
    """A boolean as Go's ``strconv.ParseBool`` reads it."""
    read = go_bool(value)
    if read is None:
        raise UsageError(f"{flag}: {key}={value} is neither true nor false", hint=f"write {key}=true or {key}=false")
    return read


def parse_output(value: str, *, flag: str = "--output") -> OutputSpec:
    """One ``-o/--output``: ``type=TYPE[,dest=PATH][,KEY=VALUE…]``, a folder's path alone, or ``-`` for a tar on stdout.

    Raises:
        UsageError: no type, an unknown one, or a destination that does not go with it.
    """
    fields = csv_fields(flag, value)
    if fields == [value] and not value.startswith("type="):
        return OutputSpec("tar", dest=STDOUT) if value == STDOUT else OutputSpec("local", dest=value)
    kind, dest = "", None
    attrs: dict[str, str] = {}
    for field in fields:
        key, equals, text = field.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise UsageError(f"{flag} {value}: {field!r} is not KEY=VALUE", hint="for example type=oci,dest=image.tar")
        if key == "type":
            kind = text
        elif key == "dest":
            dest = text or None
        else:
            attrs[key] = text
    if not kind:
        raise UsageError(f"{flag} {value}: the type is missing", hint=f"type= one of {', '.join(OUTPUT_TYPES)}")
    if kind not in OUTPUT_TYPES:
        raise UsageError(f"{flag} {value}: unknown type {kind!r}", hint=f"the types are {', '.join(OUTPUT_TYPES)}")
    return _checked_output(flag, value, kind, dest, attrs)


def _checked_output(flag: str, value: str, kind: str, dest: str | None, attrs: dict[str, str]) -> OutputSpec:
    if "push" in attrs:
        attrs["push"] = "true" if parse_bool(flag, "push", attrs["push"]) else "false"
    if kind == "registry":
        # buildx: unpacking into the builder's image store is of no use to a push.
        attrs.setdefault("unpack", "false")
    if kind in STREAM_TYPES:
        is_layout = kind != "tar" and not parse_bool(flag, "tar", attrs.get("tar", "true"))
        if is_layout and dest in (None, STDOUT):
            raise UsageError(
                f"{flag} {value}: an OCI layout needs a folder", hint=f"for example type={kind},tar=false,dest=image"
            )
        if dest is None and kind == "docker":
            raise UsageError(
                f"{flag} {value}: loading into a Docker engine is not possible",
                hint="write a file with type=docker,dest=image.tar, then docker load -i image.tar",
            )
        dest = dest or STDOUT
    elif kind == "local":
        if dest is None:
            raise UsageError(f"{flag} {value}: the destination is missing", hint="for example type=local,dest=out")
        if dest == STDOUT:
            raise UsageError(
                f"{flag} {value}: a folder cannot go to standard output", hint="use type=tar,dest=- for a tar stream"
            )
    elif dest is not None:
        raise UsageError(f"{flag} {value}: type={kind} has no dest", hint="use type=oci,dest=… for a file")
    for name in filter(None, attrs.get("name", "").split(",")):
        if name != "*":
            parse_tag(name, flag=f"{flag} name=")
    return OutputSpec(kind, dest=dest, attrs=attrs)


def parse_outputs(values: Iterable[str], *, flag: str = "--output") -> tuple[OutputSpec, ...]:
    """All ``-o/--output``; empty values are passed over, and only one may go to standard output."""
    outputs = tuple(parse_output(value, flag=flag) for value in values if value)
    if sum(output.dest == STDOUT for output in outputs) > 1:
        raise UsageError(f"{flag}: more than one output goes to standard output", hint="give all but one a dest=FILE")
    return outputs


def parse_pairs(values: Iterable[str], *, flag: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """``KEY=VALUE`` flags; the last one of a key wins.

    Args:
        values: The flag's values.
        flag: The flag's name, for errors.
        environ: Where the value of a ``KEY`` alone comes from: without it, the key gets the empty string; with it, a
            key that is not set there is left out, as ``docker build --build-arg KEY`` does.
    """
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key:
            raise UsageError(f"{flag} {value!r}: the name is missing", hint=f"write {flag} NAME=VALUE")
        if equals or environ is None:
            pairs[key] = text
        elif key in environ:
            pairs[key] = environ[key]
    return pairs


def parse_tag(value: str, *, flag: str = "--tag") -> str:
    """The name of an image to make, returned as it was written.

    Raises:
        UsageError: no valid reference, or one with a digest (that is known only after the build).
    """
    try:
        reference = parse_reference(value)
    except ValueError as problem:
        raise UsageError(f"{flag} {value!r}: {problem}", hint=f"the form is {REFERENCE_FORM}") from None
    if reference.digest is not None:
        raise UsageError(
            f"{flag} {value!r}: the digest is known only after the build", hint=f"the form is {REFERENCE_FORM}"
        )
    return value


def parse_tags(values: Iterable[str], *, flag: str = "--tag") -> tuple[str, ...]:
    """All ``-t/--tag`` in order, each once."""
    return tuple(dict.fromkeys(parse_tag(value, flag=flag) for value in values))


def parse_image(value: str, *, flag: str) -> str:
    """A reference to an image to pull; a digest is welcome."""
    try:
        parse_reference(value)
    except ValueError as problem:
        raise UsageError(f"{flag} {value!r}: {problem}", hint=f"the form is {REFERENCE_FORM}") from None
    return value


def parse_build_context(value: str, *, flag: str = "--build-context") -> NamedContext:
    """One ``--build-context NAME=VALUE``.

    The name is a reference, because a ``FROM`` or ``COPY --from`` may be replaced by it: it is brought into its short
    form without ``:latest``, so that ``docker.io/library/alpine`` and ``alpine:latest`` are the same name.
    """
    name, equals, target = value.partition("=")
    if not equals or not target:
        raise UsageError(f"{flag} {value}: not NAME=VALUE", hint=f"for example {flag} src=./folder")
    try:
        reference = parse_reference(name)
    except ValueError as problem:
        raise UsageError(f"{flag} {value}: {problem}", hint="a name is lower-case, as an image's name") from None
    if target.startswith("docker-image://"):
        parse_image(target.removeprefix("docker-image://"), flag=f"{flag} {name}=docker-image://")
        local = False
    elif target.startswith(LAYOUT_SCHEME):
        if not str(split_layout_address(target)[0]).strip("."):
            raise UsageError(
                f"{flag} {value}: the folder is missing", hint=f"for example {flag} base={LAYOUT_SCHEME}FOLDER"
            )
        local = False
    else:
        if target.startswith("target:"):
            # buildx has it for bake, which knows other targets.
            raise UsageError(
                f"{flag} {value}: there is no other target to take it from",
                hint="a stage of the same Dockerfile is used by its name; build another one first, as an OCI layout",
            )
        local = not is_remote_url(target)
    return NamedContext(name=reference.familiar.removesuffix(":latest"), value=target, local=local)


def parse_build_contexts(values: Iterable[str], *, flag: str = "--build-context") -> tuple[NamedContext, ...]:
    """All ``--build-context``; the last one of a name wins, empty values are passed over."""
    contexts = (parse_build_context(value, flag=flag) for value in values if value)
    return tuple({context.name: context for context in contexts}.values())


def parse_local_folders(values: Iterable[str], *, flag: str = "--local") -> dict[str, Path]:
    """All ``--local NAME=DIR``; the last one of a name wins."""
    folders: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not name or not equals or not folder:
            raise UsageError(f"{flag} {value}: not NAME=DIR", hint=f"for example {flag} context=.")
        folders[name] = Path(folder)
    return folders


def split_layout_address(value: str) -> tuple[Path, str, str]:
    """Folder, tag and digest of ``oci-layout://FOLDER[:TAG][@DIGEST]``; what is not given is empty."""
    path, digest, tag = value.removeprefix(LAYOUT_SCHEME), "", ""
    before, at, after = path.rpartition("@")
    if at and re.fullmatch(r"[a-z0-9]+:[0-9a-f]{32,}", after):
        path, digest = before, after
    before, colon, after = path.rpartition(":")
    if colon and re.fullmatch(r"\w[\w.-]{0,127}", after, re.ASCII):
        path, tag = before, after
    return Path(path), tag, digest


_KNOWN_OS = frozenset(
    (
        *("aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl"),
        *("netbsd", "openbsd", "plan9", "solaris", "windows", "zos"),
    )
)
_KNOWN_ARCH = frozenset(
    (
        *("386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips"),
        *("mipsle", "mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x"),
        *("sparc", "sparc64", "wasm"),
    )
)
_OPTION = r"(?:[A-Za-z0-9_.-]|%[0-9A-Fa-f]{2})"
_OS_PART = re.compile(rf"([A-Za-z0-9_-]+)(?:\(({_OPTION}*)((?:\+{_OPTION}+)*)\))?")
_PLATFORM_PART = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.-]+")


def parse_platform(value: str, *, flag: str = "--platform") -> str:
    """One platform in containerd's canonical form, ``os[(version+features)]/arch[/variant]``.

    ``aarch64``, ``linux/arm64/v8`` and ``linux/arm64`` are the same; an OS or an architecture alone is completed from
    this machine, and ``local`` is this machine.
    """
    if value.lower() == "local":
        value = f"{_local_os()}/{_local_arch()}"
    parts = value.split("/")
    os_part = _OS_PART.fullmatch(parts[0])
    if os_part is None or len(parts) > 3 or not all(_PLATFORM_PART.fullmatch(part) for part in parts[1:]):
        raise UsageError(f"{flag} {value!r}: not a platform", hint=f"the form is {PLATFORM_FORM}")
    system = {"macos": "darwin"}.get(os_part[1].lower(), os_part[1].lower())
    if len(parts) > 1:
        arch, variant = _normal_arch(parts[1], parts[2] if len(parts) > 2 else "")
    elif system in _KNOWN_OS:
        arch, variant = _normal_arch(*_local_arch().split("/"))
    else:
        system, (arch, variant) = _local_os(), _normal_arch(parts[0])
        if arch not in _KNOWN_ARCH:
            raise UsageError(
                f"{flag} {value!r}: unknown operating system or architecture",
                hint=f"the form is {PLATFORM_FORM}",
            )
    return "/".join(filter(None, (system + _os_options(os_part[2], os_part[3]), arch, variant)))


def parse_platforms(values: Iterable[str], *, flag: str = "--platform") -> tuple[str, ...]:
    """All ``--platform``, each a comma-separated list; in order, each platform once."""
    return tuple(dict.fromkeys(parse_platform(part, flag=flag) for value in values for part in value.split(",")))


def _os_options(version: str | None, features: str | None) -> str:
    if not version and not features:
        return ""
    names = sorted({unquote(name) for name in (features or "").split("+") if name})
    encoded = [_encoded_option(name) for name in names]
    return "(" + "+".join([_encoded_option(unquote(version or "")), *encoded]) + ")"


def _encoded_option(text: str) -> str:
    for char in "%+()/":
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _normal_arch(arch: str, variant: str = "") -> tuple[str, str]:
    """``normalizeArch`` of containerd's ``platforms/database.go``."""
    arch, variant = arch.lower(), variant.lower()
    match arch:
        case "i386":
            return "386", ""
        case "x86_64" | "x86-64" | "amd64":
            return "amd64", "" if variant == "v1" else variant
        case "aarch64" | "arm64":
            return "arm64", {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}.get(variant, variant)
        case "armhf":
            return "arm", "v7"
        case "armel":
            return "arm", "v6"
        case "arm":
            return "arm", {"": "v7", "7": "v7", "5": "v5", "6": "v6", "8": "v8"}.get(variant, variant)
    return arch, variant


def local_platform() -> str:
    """The platform of Linux containers on this machine."""
    return f"linux/{_local_arch()}"


def _local_os() -> str:
    return "darwin" if sys.platform == "darwin" else "windows" if os.name == "nt" else "linux"


def _local_arch() -> str:
    """This machine's architecture in Go's words, with a variant after a slash for 32-bit ARM."""
    name = machine.machine().lower()
    if name.startswith("armv") and len(name) > 4:
        return f"arm/v{name[4]}"
    return {"i386": "386", "i686": "386", "loongarch64": "loong64"}.get(name, _normal_arch(name)[0])


_ANNOTATION_TYPE = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?", re.ASCII)
_ANNOTATION_TYPES = ("manifest", "index", "manifest-descriptor", "index-descriptor")


def parse_annotations(values: Iterable[str], *, flag: str = "--annotation") -> dict[str, str]:
    """All ``--annotation [TYPE[[PLATFORM]][,…]:]NAME=VALUE``, as attributes of the exporter.

    Facts are from buildx (``util/buildflags/export.go``) and BuildKit (``exptypes/annotations.go``).

    Raises:
        UsageError: no value, or an unknown type.
    """
    found: dict[str, str] = {}
    for value in filter(None, values):
        key, equals, text = value.partition("=")
        if not equals:
            raise UsageError(f"{flag} {value}: not NAME=VALUE", hint=f"for example {flag} org.example.key=value")
        kinds, colon, name = key.partition(":")
        if not colon:
            found[f"annotation.{key}"] = text
            continue
        for kind in kinds.split(","):
            match = _ANNOTATION_TYPE.fullmatch(kind)
            if match is None or match[1] not in _ANNOTATION_TYPES:
                types = ", ".join(_ANNOTATION_TYPES)
                raise UsageError(f"{flag} {value}: unknown type {kind!r}", hint=f"the types are {types}")
            platform = ""
            if match[2] and match[1].startswith("manifest"):
                (only,) = parse_platforms((match[2],), flag=flag)
                platform = f"[{only}]"
            found[f"annotation-{match[1]}{platform}.{name}"] = text
    return found
