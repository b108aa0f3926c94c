"""Where filesystems come from: `image`, `local`, `git`, `http`, `oci_layout`, their blobs, and `scratch`.

Nothing is fetched, nor asked for, when these are called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias, Unpack
from urllib.parse import quote, unquote

from cogkit.buildkit.fsutil.gopath import join
from cogkit.buildkit.llb.constraints import ConstraintOptions, constraints_of
from cogkit.buildkit.llb.state import State
from cogkit.buildkit.llb.vertices import SourceVertex
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.reference import Reference, parse_reference

ResolveMode: TypeAlias = Literal["default", "pull", "local"]
Differ: TypeAlias = Literal["none", "metadata"]

_RESOLVE_MODES = ("default", "pull", "local")
_DIFFERS = ("none", "metadata")
_PROTOCOL = re.compile(r"[a-zA-Z0-9]+://")
_GIT_URL = re.compile(
    r"(?P<scheme>[a-zA-Z0-9]+)://(?:(?P<user>[^@/?#\s]*)@)?"
    r"(?P<host>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]*)?)(?P<path>/[^?#]*)?"
)
_SCP_URL = re.compile(r"(?P<user>[a-zA-Z0-9-_]+)@(?P<host>[a-zA-Z0-9-.]+):(?P<path>[^?#\n]*)")
_GIT_PROTOCOLS = frozenset({"http", "https", "ssh", "git"})
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE_PATH = re.compile(r"[A-Za-z0-9\-_.~!$&'()*+,/;=:@\[\]%]*")


def scratch() -> State:
    """An empty filesystem."""
    return State(None)


def image(
    ref: str,
    *,
    resolve_mode: ResolveMode | None = None,
    layer_limit: int | None = None,
    checksum: str = "",
    record_type: str = "",
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """The filesystem of an image.

    Its config (environment, working folder …) is not looked at; see `State.with_image_config`.

    Args:
        ref: The image, such as ``alpine:3.20``; ``latest`` without a tag.
        resolve_mode: ``pull`` asks the registry even if the image is there, ``local`` does not if it is.
        layer_limit: Take only so many of its layers.
        checksum: The digest that it must have.
        record_type: How ``du`` shows it, such as ``internal``.
        **constraints: See `ConstraintOptions`.
    """
    parsed = _reference(ref)
    if parsed.tag is None and parsed.digest is None:
        parsed = Reference(parsed.domain, parsed.path, "latest")
    attrs: dict[str, str] = {}
    caps = {"source.image"}
    if resolve_mode is not None and _choice("resolve mode", resolve_mode, _RESOLVE_MODES) != "default":
        attrs["image.resolvemode"] = resolve_mode
        if resolve_mode == "pull":
            caps.add("source.image.resolvemode")
    if record_type:
        attrs["image.recordtype"] = record_type
    if layer_limit is not None:
        attrs["image.layerlimit"] = str(layer_limit)
        caps.add("source.image.layerlimit")
    if checksum:
        attrs["image.checksum"] = checksum
        caps.add("source.image.checksum")
    return _source(f"docker-image://{parsed}", attrs, caps, constraints)


def local(
    mount: str,
    *,
    session_id: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_paths: Sequence[str] = (),
    shared_key_hint: str = "",
    differ: Differ | None = None,
    differ_required: bool = False,
    metadata_only: bool = False,
    metadata_only_except: Sequence[str] = (),
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """A folder of this machine: the one that the solve's mounts have under this name.

    Args:
        mount: Name of a `LocalMount`.
        session_id: Take it from this session only.
        include: Send only what matches one of these patterns.
        exclude: Do not send what matches one of these; as ``.dockerignore``.
        follow_paths: Send only these paths and what their links point to.
        shared_key_hint: Tells folders apart that may share what was sent before.
        differ: ``none`` sends all files again, ``metadata`` what changed in size, time and the like.
        differ_required: Old daemons that cannot do that refuse.
        metadata_only: Send no contents of files, but of those that match one of
        metadata_only_except: these patterns.
        **constraints: See `ConstraintOptions`.
    """
    attrs: dict[str, str] = {}
    caps = {"source.local"}
    if session_id:
        attrs["local.session"] = session_id
        caps.add("source.local.sessionid")
    for argument, key, cap, patterns in (
        ("include", "includepattern", "includepatterns", include),
        ("follow_paths", "followpaths", "followpaths", follow_paths),
        ("exclude", "excludepatterns", "excludepatterns", exclude),
    ):
        if patterns:
            attrs[f"local.{key}"] = _json_list(argument, patterns)
            caps.add(f"source.local.{cap}")
    if shared_key_hint:
        attrs["local.sharedkeyhint"] = shared_key_hint
        caps.add("source.local.sharedkeyhint")
    if differ is not None:
        attrs["local.differ"] = _choice("way to compare files", differ, _DIFFERS)
        if differ_required:
            caps.add("source.local.differ")
    if metadata_only or metadata_only_except:
        attrs["local.metadatatransfer"] = "true"
        if metadata_only_except:
            attrs["local.metadatatransferexclude"] = _json_list("metadata_only_except", metadata_only_except)
        caps.add("source.local.metadatatransfer")
    return _source(f"local://{mount}", attrs, caps, constraints)


@dataclass(frozen=True, slots=True)
class GitBundle:
    """Where `git` finds a bundle of commits, to read that instead of asking the repository.

    Attributes:
        locator: ``docker-image+blob://NAME@DIGEST`` or ``oci-layout+blob://NAME@DIGEST``.
        session_id: Of an OCI layout: the session that has it.
        store_id: Of an OCI layout: its name there.
    """

    locator: str
    session_id: str = ""
    store_id: str = ""


def git(
    url: str,
    ref: str = "",
    *,
    subdir: str = "",
    keep_git_dir: bool = False,
    auth_token_secret: str | None = None,
    auth_header_secret: str | None = None,
    known_ssh_hosts: str | Sequence[str] = (),
    ssh: str = "",
    checksum: str = "",
    skip_submodules: bool = False,
    mtime: Literal["checkout", "commit"] | None = None,
    fetch_by_commit: bool = False,
    bundle: GitBundle | None = None,
    checkout_bundle: bool = False,
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """A checkout of a git repository.

    Args:
        url: ``https://…``, ``ssh://…``, ``git://…``, ``USER@HOST:PATH``, or without a scheme for https.
        ref: Branch, tag or commit; the default branch if empty.
        subdir: The folder to take.
        keep_git_dir: Keep ``.git``.
        auth_token_secret: Secret with a token for https, ``GIT_AUTH_TOKEN`` by default; empty for none.
        auth_header_secret: Secret with a header for https, ``GIT_AUTH_HEADER`` by default; empty for none.
        known_ssh_hosts: Lines as in ``known_hosts``.  Unlike Go's library, this one does not ask the host for its key.
        ssh: The SSH agent to use, ``default`` if empty.
        checksum: The commit that ``ref`` must be.
        skip_submodules: Leave submodules out.
        mtime: The time that files get, that of the checkout by default.
        fetch_by_commit: Fetch ``checksum`` without asking what ``ref`` is.
        bundle: Read this bundle.
        checkout_bundle: Give a bundle of the commit instead of its files.
        **constraints: See `ConstraintOptions`.
    """
    remote, host, path, scheme = _git_url(url)
    identifier = host + join("/", path)
    if ref or subdir:
        identifier += f"#{ref}" + (f":{subdir}" if subdir else "")
    attrs = {"git.fullurl": remote}
    caps = {"source.git", "source.git.fullurl"}
    for key, secret, usual in (
        ("git.authtokensecret", auth_token_secret, "GIT_AUTH_TOKEN"),
        ("git.authheadersecret", auth_header_secret, "GIT_AUTH_HEADER"),
    ):
        name = usual if secret is None else secret
        if name:
            attrs[key] = name
            if auth_token_secret is not None or auth_header_secret is not None:
                caps.add("source.git.httpauth")
    if scheme == "ssh":
        lines = (known_ssh_hosts,) if isinstance(known_ssh_hosts, str) else known_ssh_hosts
        if known := "".join(line.removesuffix("\n") + "\n" for line in lines if line):
            attrs["git.knownsshhosts"] = known
        attrs["git.mountsshsock"] = ssh or "default"
        caps |= {"source.git.knownsshhosts", "source.git.mountsshsock"}
    for asked, key, value, cap in (
        (keep_git_dir, "git.keepgitdir", "true", "keepgitdir"),
        (checksum, "git.checksum", checksum, "checksum"),
        (skip_submodules, "git.skipsubmodules", "true", "skipsubmodules"),
        (mtime, "git.mtime", mtime or "", "mtime"),
        (fetch_by_commit, "git.fetchbycommit", "true", "fetchbycommit"),
        (checkout_bundle, "git.checkoutbundle", "true", "checkoutbundle"),
    ):
        if asked:
            attrs[key] = value
            caps.add(f"source.git.{cap}")
    if bundle is not None:
        attrs["git.bundle"] = bundle.locator
        caps.add("source.git.bundle")
        _add_store(attrs, bundle.session_id, bundle.store_id)
    return _source(f"git://{identifier}", attrs, caps, constraints)


def http(
    url: str,
    *,
    filename: str = "",
    checksum: str = "",
    chmod: int = 0,
    chown: tuple[int, int] = (0, 0),
    auth_header_secret: str = "",
    accept: str = "",
    user_agent: str = "",
    pgp_public_key: bytes | str = b"",
    pgp_signature: bytes | str = b"",
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """A file from a web server, alone in its filesystem.

    Args:
        url: ``http://…`` or ``https://…``.
        filename: How to call it; as the server does, or ``download``, if empty.
        checksum: The digest that it must have, ``sha256:…``.
        chmod: Its permissions, 0600 if 0.
        chown: Numbers of its owner and group.
        auth_header_secret: Secret with an ``Authorization`` header.
        accept: Header of the request.
        user_agent: Header of the request.
        pgp_public_key: Armored key that the file must be signed with.
        pgp_signature: The armored, detached signature.
        **constraints: See `ConstraintOptions`.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url!r} is not an address that begins with http:// or https://")
    attrs: dict[str, str] = {}
    caps = {"source.http"}
    if checksum:
        attrs["http.checksum"] = checksum
        caps.add("source.http.checksum")
    permissions, owner = _add_file_info(attrs, filename, chmod, chown)
    if permissions:
        caps.add("source.http.perm")
    if owner:
        # BuildKit's own spelling.
        caps.add("soruce.http.uidgid")
    if auth_header_secret:
        attrs["http.authheadersecret"] = auth_header_secret
        caps.add("source.http.auth")
    if accept or user_agent:
        attrs |= {
            f"http.header.{key}": value for key, value in (("accept", accept), ("user-agent", user_agent)) if value
        }
        caps.add("source.http.header")
    if pgp_public_key or pgp_signature:
        for key, value in (("http.sig.pubkey", pgp_public_key), ("http.sig.signature", pgp_signature)):
            if value:
                attrs[key] = value if isinstance(value, str) else value.decode()
        caps.add("source.http.signatureverify")
    return _source(url, attrs, caps, constraints)


def oci_layout(
    ref: str,
    *,
    session_id: str = "",
    store_id: str = "",
    layer_limit: int | None = None,
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """The filesystem of an image in an OCI layout of this machine.

    Args:
        ref: ``NAME@DIGEST``, where the solve's ``oci_layouts`` has the folder under the name.
        session_id: Take it from this session only.
        store_id: The layout's name there, if it is not that of ``ref``.
        layer_limit: Take only so many of its layers.
        **constraints: See `ConstraintOptions`.
    """
    attrs: dict[str, str] = {}
    _add_store(attrs, session_id, store_id)
    if layer_limit is not None:
        attrs["oci.layerlimit"] = str(layer_limit)
    return _source(f"oci-layout://{ref}", attrs, {"source.ocilayout"}, constraints)


def image_blob(
    ref: str,
    *,
    filename: str = "",
    chmod: int = 0,
    chown: tuple[int, int] = (0, 0),
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """One blob of a registry, ``NAME@DIGEST``, as a file alone in its filesystem."""
    return _blob("docker-image+blob://", ref, {}, filename, chmod, chown, constraints)


def oci_layout_blob(
    ref: str,
    *,
    session_id: str = "",
    store_id: str = "",
    filename: str = "",
    chmod: int = 0,
    chown: tuple[int, int] = (0, 0),
    **constraints: Unpack[ConstraintOptions],
) -> State:
    """One blob of an OCI layout, ``NAME@DIGEST``, as a file alone in its filesystem."""
    attrs: dict[str, str] = {}
    _add_store(attrs, session_id, store_id)
    return _blob("oci-layout+blob://", ref, attrs, filename, chmod, chown, constraints)


def _blob(
    scheme: str,
    ref: str,
    attrs: dict[str, str],
    filename: str,
    chmod: int,
    chown: tuple[int, int],
    constraints: ConstraintOptions,
) -> State:
    parsed = _reference(ref)
    if parsed.tag is not None or parsed.digest is None:
        raise UsageError(f"{ref!r} does not name a blob", hint="write NAME@DIGEST, without a tag")
    _add_file_info(attrs, filename, chmod, chown)
    return _source(f"{scheme}{parsed}", attrs, {"source.imageblob"}, constraints)


def _source(identifier: str, attrs: dict[str, str], caps: set[str], constraints: ConstraintOptions) -> State:
    return State(SourceVertex(identifier, attrs, frozenset(caps), constraints_of(constraints)).output)


def _reference(ref: str) -> Reference:
    try:
        return parse_reference(ref)
    except ValueError as error:
        raise UsageError(f"{ref!r} is not the name of an image: {error}") from error


def _choice(kind: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise UsageError(f"{value!r} is not a {kind}", hint=f"choose one of {', '.join(choices)}")
    return value


def _add_store(attrs: dict[str, str], session_id: str, store_id: str) -> None:
    if session_id:
        attrs["oci.session"] = session_id
    if store_id:
        attrs["oci.store"] = store_id


def _add_file_info(attrs: dict[str, str], filename: str, chmod: int, chown: tuple[int, int]) -> tuple[bool, bool]:
    """Whether permissions, and whether an owner, were set."""
    permissions = chmod & 0o777
    if filename:
        attrs["http.filename"] = filename
    if permissions:
        attrs["http.perm"] = f"0{permissions:o}"
    for key, number in zip(("http.uid", "http.gid"), chown, strict=True):
        if number:
            attrs[key] = str(number)
    return permissions != 0, any(chown)


def _json_list(name: str, values: Sequence[str]) -> str:
    """A list in JSON, as Go writes it."""
    import json

    if isinstance(values, str):
        raise UsageError(f"{name} takes a list of patterns, not one text")
    words = json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        words = words.replace(char, f"\\u{ord(char):04x}")
    return words


def _git_url(url: str) -> tuple[str, str, str, str]:
    """The repository's address without what belongs to us, and its host, path and scheme."""
    if scp := _SCP_URL.fullmatch(url):
        return url, scp["host"], scp["path"], "ssh"
    full = url if _PROTOCOL.match(url) else f"https://{url}"
    if "#" in url or "?" in url:
        raise UsageError(f"{url!r} says more than where the repository is", hint="give ref and subdir as arguments")
    found = _GIT_URL.fullmatch(full)
    if found is None or _BAD_ESCAPE.search(full) or any(char < " " or char == "\x7f" for char in full):
        raise UsageError(f"{url!r} is not the address of a git repository")
    scheme = found["scheme"].lower()
    if scheme not in _GIT_PROTOCOLS:
        raise UsageError(f"git does not speak {scheme}", hint=f"choose one of {', '.join(sorted(_GIT_PROTOCOLS))}")
    path = found["path"] or ""
    remote = f"{scheme}://"
    if found["user"] is not None:
        user, colon, password = found["user"].partition(":")
        remote += quote(unquote(user), safe="$&+,;=")
        remote += f":{quote(unquote(password), safe='$&+,;=')}@" if colon else "@"
    escaped = path if _SAFE_PATH.fullmatch(path) else quote(unquote(path), safe="$&+,/:;=@")
    return f"{remote}{found['host']}{escaped}", found["host"], unquote(path), scheme
