"""The values of flags mean what they mean to docker buildx build; a refusal says flag, value and what is allowed."""

from __future__ import annotations

import pytest

from cogkit.building import values
from cogkit.building.options import NamedContext, OutputSpec
from cogkit.errors import UsageError
from cogkit.oci.reference import parse_reference

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("out", OutputSpec("local", dest="out")),
        ("./a=b", OutputSpec("local", dest="./a=b")),
        ("-", OutputSpec("tar", dest="-")),
        ("type=local,dest=out", OutputSpec("local", dest="out")),
        ("type=tar", OutputSpec("tar", dest="-")),
        ("type=oci,dest=x.tar", OutputSpec("oci", dest="x.tar")),
        ("type=oci", OutputSpec("oci", dest="-")),
        ("type=docker,dest=-", OutputSpec("docker", dest="-")),
        ("type=image,name=a/b:c,push=1", OutputSpec("image", attrs={"name": "a/b:c", "push": "true"})),
        ('type=image,"name=a,b",push=f', OutputSpec("image", attrs={"name": "a,b", "push": "false"})),
        ("type=registry", OutputSpec("registry", attrs={"unpack": "false"})),
        ("type=registry,unpack=true", OutputSpec("registry", attrs={"unpack": "true"})),
        ("TYPE=oci, Dest =x,compression=zstd", OutputSpec("oci", dest="x", attrs={"compression": "zstd"})),
        ('"type=local","dest=with ""quotes"""', OutputSpec("local", dest='with "quotes"')),
    ],
)
def test_an_output_is_read_as_buildx_reads_it(value: str, expected: OutputSpec) -> None:
    assert values.parse_output(value) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("type=", "the type is missing"),
        ("dest=x,push=true", "the type is missing"),
        ("type=zip,dest=x", "unknown type 'zip'"),
        ("type=local", "the destination is missing"),
        ("type=local,dest=-", "a folder cannot go to standard output"),
        ("type=image,dest=x", "has no dest"),
        ("type=docker", "loading into a Docker engine is not possible"),
        ("type=oci,tar=false", "an OCI layout needs a folder"),
        ("type=docker,tar=false,dest=-", "an OCI layout needs a folder"),
        ("type=oci,nonsense", "'nonsense' is not KEY=VALUE"),
        ("type=oci,=x", "'=x' is not KEY=VALUE"),
        ("type=image,push=yes", "push=yes is neither true nor false"),
        ('type=image,name="a,b"', "a quote inside a field"),
        ('type=image,"name=a', "does not end in a quote"),
        ('type=image,"name=a"b', "does not end in a quote"),
        ("type=image,name=UPPER", "must be lower-case"),
    ],
)
def test_an_output_that_makes_no_sense_is_refused_with_flag_and_value(value: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        values.parse_output(value)
    assert caught.value.message.startswith("--output")
    assert says in caught.value.message
    assert caught.value.hint


def test_empty_outputs_are_passed_over_and_only_one_may_take_standard_output() -> None:
    assert values.parse_outputs(["", "type=tar,dest=a"]) == (OutputSpec("tar", dest="a"),)
    with pytest.raises(UsageError, match="more than one output goes to standard output"):
        values.parse_outputs(["-", "type=oci"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("src=.", NamedContext("src", ".", local=True)),
        ("src=a=b", NamedContext("src", "a=b", local=True)),
        ("alpine:latest=docker-image://alpine:3.20", NamedContext("alpine", "docker-image://alpine:3.20", local=False)),
        (
            "docker.io/library/alpine=docker-image://x@" + SHA,
            NamedContext("alpine", "docker-image://x@" + SHA, local=False),
        ),
        ("docker.io/me/x:1=dir", NamedContext("me/x:1", "dir", local=True)),
        ("r=https://example.com/a.tar.gz", NamedContext("r", "https://example.com/a.tar.gz", local=False)),
        (
            "r=git@github.com:moby/buildkit.git#v1",
            NamedContext("r", "git@github.com:moby/buildkit.git#v1", local=False),
        ),
        ("r=ssh://git@host/repo.git", NamedContext("r", "ssh://git@host/repo.git", local=False)),
        ("r=github.com/moby/buildkit", NamedContext("r", "github.com/moby/buildkit", local=False)),
        ("r=./github.com/x", NamedContext("r", "./github.com/x", local=True)),
    ],
)
def test_a_named_context_has_a_short_name_and_knows_whether_it_is_local(value: str, expected: NamedContext) -> None:
    assert values.parse_build_context(value) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("src", "not NAME=VALUE"),
        ("src=", "not NAME=VALUE"),
        ("=x", "the name is empty"),
        ("SRC=x", "must be lower-case"),
        ("a=docker-image://UPPER", "must be lower-case"),
        ("a=oci-layout://", "the folder is missing"),
        ("a=target:base", "there is no other target"),
    ],
)
def test_a_named_context_that_makes_no_sense_is_refused(value: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        values.parse_build_context(value)


def test_the_last_context_of_a_name_wins() -> None:
    contexts = values.parse_build_contexts(["a=x", "b=y", "", "a:latest=z"])
    assert contexts == (NamedContext("a", "z", local=True), NamedContext("b", "y", local=True))


def test_a_build_arg_without_value_comes_from_the_environment_or_is_left_out() -> None:
    given = ["A=1", "B", "C", "A=2", "D=x=y"]
    assert values.parse_pairs(given, flag="--build-arg", environ={"B": "env"}) == {"A": "2", "B": "env", "D": "x=y"}
    assert values.parse_pairs(["k"], flag="--label") == {"k": ""}
    with pytest.raises(UsageError, match="--label '=x': the name is missing"):
        values.parse_pairs(["=x"], flag="--label")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("windows(10.0.17763+b+a)/amd64", "windows(10.0.17763+a+b)/amd64"),
        ("plan9/whatever", "plan9/whatever"),
    ],
)
def test_a_platform_is_brought_into_containerds_form(value: str, expected: str) -> None:
    assert values.parse_platform(value) == expected


def test_half_a_platform_is_completed_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert values.parse_platform("local") == "linux/arm64"
    assert values.parse_platform("linux") == "linux/arm64"
    assert values.parse_platform("amd64") == "linux/amd64"
    assert values.parse_platform("windows") == "windows/arm64"
    monkeypatch.setattr("platform.machine", lambda: "armv6l")
    assert values.parse_platform("local") == "linux/arm/v6"


@pytest.mark.parametrize("value", ["", "linux/", "linux/amd64/v1/x", "pdp11", "linux/a*b", "li nux/amd64", "*"])
def test_what_is_no_platform_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--platform") as caught:
        values.parse_platform(value)
    assert "OS/ARCH[/VARIANT]" in (caught.value.hint or "")


def test_platforms_come_in_lists_and_each_counts_once() -> None:
    assert values.parse_platforms(["linux/arm64,linux/amd64", "linux/arm64/v8"]) == ("linux/arm64", "linux/amd64")


@pytest.mark.parametrize(
    ("text", "familiar", "full"),
    [
        ("alpine", "alpine", "docker.io/library/alpine"),
        ("alpine:3", "alpine:3", "docker.io/library/alpine:3"),
        ("me/x", "me/x", "docker.io/me/x"),
        ("docker.io/alpine", "alpine", "docker.io/library/alpine"),
        ("index.docker.io/library/a/b", "library/a/b", "docker.io/library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x__y/z-.-z".replace("-.-", "--"), "localhost:5000/x__y/z--z", "localhost:5000/x__y/z--z"),
        ("Registry/x:Tag_1.2-3", "Registry/x:Tag_1.2-3", "Registry/x:Tag_1.2-3"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("r.io/x:1@" + SHA, "r.io/x:1@" + SHA, "r.io/x:1@" + SHA),
    ],
)
def test_a_reference_has_a_full_and_a_familiar_form(text: str, familiar: str, full: str) -> None:
    reference = parse_reference(text)
    assert (reference.familiar, str(reference)) == (familiar, full)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the name is empty"),
        ("a" * 64, "an image ID"),
        ("Alpine", "'Alpine' must be lower-case"),
        ("me/Alpine", "must be lower-case"),
        ("a//b", "has an empty part"),
        ("a/", "has an empty part"),
        ("-a", "'-a' cannot be part"),
        ("a_-b", "cannot be part"),
        ("a___b", "cannot be part"),
        ("a:", "'' is not a tag"),
        ("a:.x", "'.x' is not a tag"),
        ("a:" + "x" * 129, "is not a tag"),
        ("ex_ample.com/a", "'ex_ample.com' is not a registry host"),
        ("a@sha256:12", "is not a digest"),
        ("a@md5:" + "a" * 32, "is not a digest"),
        ("a@sha256:" + "a" * 63, "64 lower-case"),
        ("r.io/" + "x" * 256, "256 characters, 255 are allowed"),
        ("a b", "cannot be part"),
        ("a\n", "cannot be part"),
    ],
)
def test_a_reference_that_is_none_says_which_part_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=None) as caught:
        parse_reference(text)
    assert says in str(caught.value)


def test_tags_keep_their_order_and_refuse_digests() -> None:
    assert values.parse_tags(["b:1", "a", "b:1"]) == ("b:1", "a")
    with pytest.raises(UsageError, match=r"--tag .*the digest is known only after the build"):
        values.parse_tags(["a@" + SHA])
    with pytest.raises(UsageError, match=r"--tag 'A:b': the repository 'A' must be lower-case"):
        values.parse_tags(["A:b"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("dir", ("dir", "", "")),
        ("/a/dir:v1", ("/a/dir", "v1", "")),
        (f"dir@sha256:{'a' * 64}", ("dir", "", f"sha256:{'a' * 64}")),
        (f"dir:v1@sha256:{'a' * 64}", ("dir", "v1", f"sha256:{'a' * 64}")),
        ("/a:b/dir", ("/a:b/dir", "", "")),
        ("me@home/dir", ("me@home/dir", "", "")),
    ],
)
def test_image_in_an_oci_layout_has_a_folder_a_tag_and_a_digest(address: str, expected: tuple[str, str, str]) -> None:
    folder, tag, digest = values.split_layout_address(f"oci-layout://{address}")
    assert (str(folder), tag, digest) == expected
    assert not values.parse_build_context(f"base=oci-layout://{address}").local


@pytest.mark.parametrize(
    ("value", "attrs"),
    [
        ("a=b", {"annotation.a": "b"}),
        ("manifest:a=b=c", {"annotation-manifest.a": "b=c"}),
        ("index,manifest:a=b", {"annotation-index.a": "b", "annotation-manifest.a": "b"}),
        ("manifest[linux/amd64]:a=b", {"annotation-manifest[linux/amd64].a": "b"}),
        ("index-descriptor:a=", {"annotation-index-descriptor.a": ""}),
        ("", {}),
    ],
)
def test_annotations(value: str, attrs: dict[str, str]) -> None:
    assert values.parse_annotations([value]) == attrs


@pytest.mark.parametrize("value", ["a", "what:a=b", "manifest[:a=b", "manifest[nowhere/x/y/z]:a=b"])
def test_annotations_that_make_no_sense(value: str) -> None:
    with pytest.raises(UsageError):
        values.parse_annotations([value])
