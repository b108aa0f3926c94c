"""Random LLB graphs as JSON, for the oracle (``tests/oracle_llb``), and the same ones built in Python.

`random_graph` makes one; `build` makes its last state with `cogkit.buildkit.llb` and marshals it, and notes in a
`Record` every function that it called and every argument that was not the default.
"""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from cogkit.buildkit import llb

TEXTS = ["", "a", "ä€", "a b", "q\"uo'te", "<&>", "\u2028", "x" * 200, "new\nline", "\U0001f600", "$PATH"]
PATHS = ["/", "/a", "a", "", ".", "..", "a/../b", "/a//b/", "b/.", "./x", "/x/.", "../../y", "/ü/b c", "a/"]
TARGETS = ["/", "/a", "/b", "/a/b", "/z", "!first", "relative", "/ä", ""]
DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGES = [
    "alpine",
    "alpine:3.20",
    f"alpine@{DIGEST}",
    f"alpine:3@{DIGEST}",
    "localhost:5000/x/y:1",
    "localhost/x",
    "docker.io/library/busybox",
    "index.docker.io/foo/bar",
    "registry.example.com/a/b/c:tag",
]
BAD_IMAGES = ["Upper/case", "a@sha256:short", "a:b:c", "", "-x", "f" * 64, "a//b"]
PLATFORMS = [
    {"os": "linux", "architecture": "amd64"},
    {"os": "linux", "architecture": "arm64", "variant": "v8"},
    {"os": "linux", "architecture": "arm", "variant": "7"},
    {"os": "linux", "architecture": "arm"},
    {"os": "linux", "architecture": "armel"},
    {"os": "Linux", "architecture": "x86_64", "variant": "v1"},
    {"os": "windows", "architecture": "amd64", "os_version": "10.0.1", "os_features": ["win32k", "b", "b", "a"]},
    {"os": "macos", "architecture": "aarch64"},
    {"os": "", "architecture": "i386", "variant": "x"},
]
GIT_URLS = [
    "https://github.com/moby/buildkit.git",
    "github.com/moby/buildkit",
    "HTTPS://Example.com:8443/A/b.git",
    "http://user:pa%40ss@host/a%20b/%C3%BC.git",
    "http://user@host/a!b(c)'*/x[1].git",
    "https://host/ü b.git",
    "https://host",
    "https://host/",
    "git://host/../x//y/",
    "ssh://git@127.0.0.1:1/x/y.git",
    "git@github.com:moby/buildkit.git",
    "git@host.example:/abs/../path",
]
KNOWN_HOSTS = ["github.com ssh-ed25519 AAAA", "host ssh-rsa BBBB\n"]
COMMANDS = [
    "make all",
    "  a   b\tc\nd ",
    "sh -c 'echo \"x\" # no comment'",
    "echo a#b # a comment",
    "# only\nafter",
    'say "it\'s \\"so\\" \\n" a\\ b',
    "x ''",
    '"" y',
    "a'b'\"c\"",
    "ü\\ü",
]
# Of a line that it cannot split, Go's library takes the words before; ours refuses it.
BAD_COMMANDS = ["   ", "# nothing", "'open", "\\"]


class Record:
    """What was used: ``function(argument)`` for each argument that was given, and ``function`` itself."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        name = function.__qualname__.removeprefix("FileAction.")
        bound = inspect.signature(function).bind(*args, **kwargs)
        self.used.add(name)
        for key, value in bound.arguments.items():
            if key == "constraints":
                self.used.update(f"constraints({each})" for each in value)
                self.used.add(f"{name}(constraints)")
            elif value != bound.signature.parameters[key].default:
                self.used.add(f"{name}({key})")
        return function(*args, **kwargs)


# ---- random graphs


_WITH_FILES = frozenset({"image", "local", "git", "http", "oci_layout", "image_blob", "oci_layout_blob", "file"})


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.rate = random.choice([0.05, 0.15, 0.3, 0.6])
        self.steps: list[dict[str, Any]] = []
        self.maps: list[dict[str, Any]] = []
        self.marks = 0
        # Whether the step in the making may be one that both refuse.  Ours does so at once, Go only when the step is
        # used, so it has to be the last one.
        self.wrong = False

    def some(self, rate: float | None = None) -> bool:
        return self.random.random() < (self.rate if rate is None else rate)

    def pick(self, options: list[Any]) -> Any:
        return self.random.choice(options)

    def text(self) -> str:
        return str(self.pick(TEXTS))

    def word(self) -> str:
        return str(self.pick(TEXTS[1:]))

    def path(self) -> str:
        return str(self.pick(PATHS))

    def words(self) -> list[str]:
        return [self.text() for _ in range(self.random.randint(1, 3))]

    def maybe(self, **makers: Callable[[], Any]) -> dict[str, Any]:
        return {key: make() for key, make in makers.items() if self.some()}

    def yes(self) -> bool:
        return True

    def integer(self) -> int:
        return int(self.pick([1, 5, 127, 128, 300, 2047, 2048, 1 << 20, (1 << 31) - 1]))

    def large(self) -> int:
        return int(self.pick([1, -1, 0, 1 << 40, (1 << 63) - 1, -(1 << 63)]))

    def state(self) -> int:
        # Later states more often, so that graphs get deep.
        count = len(self.steps)
        return max(self.random.randrange(count), self.random.randrange(count))

    def state_with_files(self) -> int:
        return int(self.pick([index for index, each in enumerate(self.steps) if each["op"] in _WITH_FILES]))

    # ---- constraints

    def constraints(self) -> dict[str, Any]:
        made = self.maybe(
            name=self.word,
            description=lambda: {self.text(): self.text() for _ in range(self.random.randint(0, 3))},
            ignore_cache=self.yes,
            export_cache=lambda: self.pick([True, False]),
            platform=lambda: self.pick(PLATFORMS),
            require=self.words,
            progress_group=lambda: {"id": self.text(), "name": self.text(), "weak": self.pick([True, False])},
            resources=self.resources,
            local_unique_id=self.word,
        )
        if self.maps and self.some():
            usable = [
                index
                for index, each in enumerate(self.maps)
                if each["state"] is None or each["state"] < len(self.steps)
            ]
            if usable:
                made["locations"] = [
                    {"map": self.pick(usable), "ranges": [self.range() for _ in range(self.random.randint(0, 2))]}
                    for _ in range(self.random.randint(1, 2))
                ]
        return made

    def range(self) -> list[int]:
        return [self.pick([0, 1, 7, 200]), self.pick([0, 2, 9, 300]), self.pick([0, 0, 3]), self.pick([0, 0, 4])]

    def resources(self) -> dict[str, Any]:
        return self.maybe(
            memory=self.large,
            memory_swap=self.large,
            cpu_shares=self.integer,
            cpu_period=lambda: (1 << 64) - 1,
            cpu_quota=self.large,
            cpuset_cpus=self.text,
            cpuset_mems=self.text,
        )

    # ---- sources

    def source(self) -> dict[str, Any]:
        kind = self.pick(["image", "local", "git", "http", "oci_layout", "scratch", "image_blob", "oci_layout_blob"])
        step: dict[str, Any] = {"op": kind}
        if kind != "scratch":
            step["constraints"] = self.constraints()
        match kind:
            case "image":
                step["text"] = self.pick(BAD_IMAGES if self.wrong else IMAGES)
                step["image"] = self.maybe(
                    resolve_mode=lambda: self.pick(["default", "pull", "local"]),
                    layer_limit=lambda: self.pick([0, 3]),
                    checksum=lambda: DIGEST,
                    record_type=lambda: "internal",
                )
            case "local":
                step["text"] = self.pick(["context", "ä b", "x/y"])
                step["local"] = self.maybe(
                    session_id=self.word,
                    include=self.words,
                    exclude=self.words,
                    follow_paths=self.words,
                    shared_key_hint=self.word,
                    differ=lambda: self.pick(["none", "metadata"]),
                    differ_required=self.yes,
                    metadata_only=self.yes,
                )
                if step["local"].get("metadata_only") and self.some(0.5):
                    step["local"]["metadata_only_except"] = self.words()
            case "git":
                self.git(step)
            case "http":
                step["text"] = self.pick(["https://example.com/a?b=c", "http://127.0.0.1:1/ä", "https://h/#x"])
                step["http"] = self.maybe(
                    filename=self.word,
                    checksum=lambda: DIGEST,
                    chmod=lambda: self.pick([0o644, 0o4755, 0o1, 0o1000]),
                    chown=lambda: self.pick([[0, 0], [1, 0], [0, 5], [1000, 1000]]),
                    auth_header_secret=self.word,
                    accept=self.word,
                    user_agent=self.word,
                    pgp_public_key=self.word,
                    pgp_signature=self.word,
                )
            case "oci_layout":
                step["text"] = self.pick([f"store@{DIGEST}", "any/thing:x"])
                step["layout"] = self.maybe(
                    session_id=self.word, store_id=self.word, layer_limit=lambda: self.pick([0, 7])
                )
            case "image_blob" | "oci_layout_blob":
                good = [f"alpine@{DIGEST}", f"registry.example.com/a@{DIGEST}"]
                step["text"] = self.pick(["alpine", f"a:b@{DIGEST}"] if self.wrong else good)
                step["layout"] = self.maybe(
                    filename=self.word,
                    chmod=lambda: self.pick([0o600, 0o777]),
                    chown=lambda: self.pick([[1, 2], [0, 3]]),
                )
                if kind == "oci_layout_blob":
                    step["layout"] |= self.maybe(session_id=self.word, store_id=self.word)
        return step

    def git(self, step: dict[str, Any]) -> None:
        step["text"] = self.pick(GIT_URLS)
        step["text2"] = self.pick(["", "main", "v1.0", "a" * 40])
        step["git"] = self.maybe(
            subdir=lambda: self.pick(["a", "a/../b", "ä"]),
            keep_git_dir=self.yes,
            auth_token_secret=self.text,
            auth_header_secret=self.text,
            known_ssh_hosts=lambda: self.random.sample(KNOWN_HOSTS, self.random.randint(1, 2)),
            ssh=self.word,
            checksum=lambda: "b" * 40,
            skip_submodules=self.yes,
            mtime=lambda: self.pick(["commit", "checkout"]),
            fetch_by_commit=self.yes,
            checkout_bundle=self.yes,
        )
        if self.some():
            step["git"] |= {"bundle": f"oci-layout+blob://x@{DIGEST}"}
            step["git"] |= self.maybe(bundle_session=self.word, bundle_store=self.word)
        if "git@" in step["text"] and "127.0.0.1" not in step["text"]:
            # Without any, Go's library asks the host.
            step["git"]["known_ssh_hosts"] = KNOWN_HOSTS[:1]

    # ---- what is done with states

    def change(self) -> dict[str, Any]:
        runs = [index for index, step in enumerate(self.steps) if step["op"] == "run"]
        kinds = ["run"] * 5 + ["file"] * 4 + ["merge", "diff", "surroundings", "surroundings", "image_config"]
        kinds += ["requires"] if any(each["op"] in _WITH_FILES for each in self.steps) else []
        kinds += ["state_of"] if self.some(0.3) else []
        kinds += ["reset"] if self.some(0.3) else []
        kinds += ["result"] * 3 if runs else []
        step: dict[str, Any] = {"state": self.state()}
        match self.pick(kinds):
            case "run":
                step |= {"op": "run", "run": self.run(), "constraints": self.constraints()}
            case "file":
                step |= {"op": "file", "actions": self.actions(), "constraints": self.constraints()}
            case "merge":
                step |= {"op": "merge", "states": [self.state() for _ in range(self.random.randint(1, 4))]}
                step["constraints"] = self.constraints()
            case "diff":
                step |= {"op": "diff", "states": [self.state(), self.state()], "constraints": self.constraints()}
            case "requires":
                # An empty filesystem cannot require anything, which ours says at once.
                step["state"] = self.state_with_files()
                step |= {"op": "requires", "text": "" if self.wrong else self.word()}
                step["states"] = [self.state() for _ in range(self.random.randint(0, 2))]
            case "image_config":
                step |= {"op": "with_image_config", "text": self.image_config()}
            case "state_of":
                step["op"] = "state_of"
            case "reset":
                step |= {"op": "reset", "states": [self.state()]}
            case "surroundings":
                step |= self.surroundings()
            case "result":
                step["state"] = at = self.pick(runs)
                run = self.steps[at]["run"]
                targets = [each["target"] for each in run["mounts"] if each["kind"] in ("bind", "cache", "tmpfs")]
                choices = [("root", "")]
                choices += [("added_mount" if run["add_later"] else "get_mount", each) for each in targets * 2]
                choices += [("get_mount", each) for each in (*targets, "/")]
                step["op"], step["text"] = self.pick(choices)
        return step

    def surroundings(self) -> dict[str, Any]:
        match self.pick(
            ["add_env", "dir", "user", "hostname", "platform", "network", "security", "host", "ulimit", "cgroup_parent"]
        ):
            case "add_env":
                return {"op": "add_env", "text": self.pick(["A", "B", "PATH", "SSH_AUTH_SOCK"]), "text2": self.text()}
            case "platform":
                return {"op": "platform", "platform": self.pick(PLATFORMS)}
            case "network":
                return {"op": "network", "text": self.pick(["sandbox", "host", "none"])}
            case "security":
                return {"op": "security", "text": self.pick(["sandbox", "insecure"])}
            case "host":
                return {"op": "add_extra_host", "text": self.word(), "text2": self.address()}
            case "ulimit":
                return {"op": "add_ulimit", "ulimit": self.ulimit()}
            case "dir":
                return {"op": "dir", "text": self.path()}
            case kind:
                return {"op": kind, "text": self.text()}

    def address(self) -> str:
        return str(self.pick(["10.0.0.1", "::1", "fe80:0:0:1:0:0:0:1", "::ffff:1.2.3.4", "2001:db8:0:1:1:1:1:1"]))

    def ulimit(self) -> dict[str, Any]:
        return {"name": self.pick(["nofile", "core"]), "soft": self.large(), "hard": self.large()}

    def image_config(self) -> str:
        if self.wrong:
            return "{not JSON"
        config: dict[str, Any] = self.maybe(
            architecture=lambda: self.pick(["arm64", "x86_64", ""]), os=lambda: self.pick(["linux", ""])
        )
        if "architecture" in config and "os" in config:
            config |= self.maybe(variant=lambda: "v8")
            if self.some():
                config |= {"os.version": "10", "os.features": ["z", "a"]}
        if self.some(0.8):
            config["config"] = self.maybe(
                Env=lambda: ["A=1", "B", "=x", "PATH=/a=b", "A=2"][: self.random.randint(0, 5)],
                WorkingDir=self.path,
            )
        return json.dumps(config)

    def run(self) -> dict[str, Any]:
        later = self.some(0.2)
        made: dict[str, Any] = {"mounts": [], "add_later": later}
        for _ in range(self.pick([0, 0, 1, 2, 3, 6])):
            mount = self.mount()
            taken = ["/", *(each.get("target") for each in made["mounts"])]
            # What is added later is found by its target again.
            if not (later and mount.get("target") in taken):
                made["mounts"].append(mount)
        if self.some(0.5):
            made["shlex"] = self.pick(BAD_COMMANDS if self.wrong else COMMANDS)
        else:
            made["args"] = [] if self.wrong else self.words()
        return made | self.maybe(
            env=lambda: [[key, self.text()] for key in self.random.sample(["A", "B", "C", "PATH", "SSH_AUTH_SOCK"], 2)],
            dir=self.path,
            user=self.text,
            hostname=self.text,
            network=lambda: self.pick(["sandbox", "host", "none"]),
            security=lambda: self.pick(["sandbox", "insecure"]),
            devices=lambda: [
                {"name": self.word(), "optional": self.pick([True, False])} for _ in range(self.random.randint(1, 2))
            ],
            extra_hosts=lambda: [[host, self.address()] for host in self.random.sample(["x", "y", "ä"], 2)],
            ulimits=lambda: [self.ulimit() for _ in range(self.random.randint(1, 2))],
            cgroup_parent=self.text,
            proxy=lambda: self.maybe(http=self.word, https=self.word, ftp=self.word, no_proxy=self.word, all=self.word),
            readonly_root=lambda: not self.wrong,
            valid_exit_codes=lambda: self.random.sample([0, 1, 127, 200, -1, (1 << 31) - 1], 2),
        )

    def mount(self) -> dict[str, Any]:
        kind = self.pick(["bind", "bind", "bind", "cache", "tmpfs", "secret", "secret_env", "ssh"])
        made: dict[str, Any] = {"kind": kind}
        if kind != "secret_env":
            made["target"] = self.pick(TARGETS)
        match kind:
            case "bind":
                made |= self.maybe(
                    path=self.path,
                    readonly=self.yes,
                    no_output=self.yes,
                    content_cache=lambda: self.pick([True, False]),
                )
                if self.some(0.7):
                    made["source"] = self.state()
            case "cache":
                made["id"], made["target"] = self.word(), self.pick(TARGETS[:-1])
                made["sharing"] = self.pick(["shared", "private", "locked"])
                made |= self.maybe(
                    source=self.state,
                    path=self.path,
                    readonly=self.yes,
                    no_output=self.yes,
                    content_cache=lambda: self.pick([True, False]),
                )
            case "tmpfs":
                made |= self.maybe(size=lambda: self.pick([1, 1 << 30]))
            case "secret":
                made |= {"id": self.word(), "target": self.pick(TARGETS[:-1]), "mode": self.pick([0o400, 0, 0o777])}
                made |= self.maybe(uid=self.integer, gid=self.integer, optional=self.yes)
            case "secret_env":
                made |= {"id": self.word(), "name": self.word()} | self.maybe(optional=self.yes)
            case "ssh":
                made |= {"id": self.text(), "mode": self.pick([0o600, 0, 0o777])}
                made |= self.maybe(uid=self.integer, gid=self.integer, optional=self.yes)
        return made

    def actions(self, depth: int = 0) -> list[dict[str, Any]]:
        return [self.action(depth) for _ in range(self.pick([1, 1, 2, 3]))]

    def action(self, depth: int) -> dict[str, Any]:
        kind = self.pick(["mkdir", "mkfile", "symlink", "rm", "copy", "copy", "copy"])
        made: dict[str, Any] = {"kind": kind, "path": self.path()}
        owner_and_time: dict[str, Callable[[], Any]] = {
            "created": lambda: self.pick([0, 1, 1_600_000_000_123_456_789, -5]),
            "chown": lambda: self.pick(["root", "1000:1000", "me", "me:us", ":5", "+7:-7", "1:", "", "99999999999"]),
            "owner": lambda: self.maybe(
                user_id=self.integer, user_name=self.word, group_id=self.integer, group_name=self.word
            ),
        }
        match kind:
            case "mkdir":
                made["mode"] = self.pick([0o755, 0, 0o4777])
                made |= self.maybe(parents=self.yes, **owner_and_time)
            case "mkfile":
                made["mode"] = self.pick([0o644, 0, 0o7777])
                made |= self.maybe(data=lambda: _base64(self.word().encode() + b"\xff\0"), **owner_and_time)
            case "symlink":
                made["path2"] = self.path()
                made |= self.maybe(**owner_and_time)
            case "rm":
                made |= self.maybe(allow_not_found=self.yes, wildcard=self.yes)
            case "copy":
                made["path2"] = self.path()
                made["from"] = self.state()
                if depth < 2 and self.some(0.2):
                    made["bound"] = self.actions(depth + 1)
                    self.marks += 1
                    made["mark"] = self.marks
                elif depth == 0 and self.marks and self.some(0.3):
                    made["again"] = -1
                made |= self.maybe(
                    mode=lambda: self.pick([0, 0o755, 0o4755]),
                    mode_str=lambda: self.pick(["u+x", "a=rwX"]),
                    follow_symlinks=self.yes,
                    contents_only=self.yes,
                    create_dest_path=self.yes,
                    wildcard=self.yes,
                    allow_empty_wildcard=self.yes,
                    include=self.words,
                    exclude=self.words,
                    required=self.words,
                    unpack=self.yes,
                    replace_existing=self.yes,
                    **owner_and_time,
                )
        return made


def random_graph(random: Random) -> dict[str, Any]:
    """One graph, whose first states are sources."""
    maker = _Maker(random)
    for _ in range(random.choice([0, 0, 1, 3])):
        maker.maps.append(
            {
                "filename": random.choice(["Dockerfile", "b.py"]),
                "language": random.choice(["", "Python"]),
                "data": _base64(random.choice([b"", b"FROM x\n", b"\xff"])),
                "state": random.choice([None, None, 0, 1]),
            }
        )
    maker.wrong = maker.some(0.02)
    maker.steps.append(maker.source())
    if maker.wrong:
        return {"steps": maker.steps, "maps": maker.maps, "marshal": {"local_unique_id": "unique"}}
    for _ in range(random.randint(0, 3)):
        maker.steps.append(maker.source())
    changes = random.choice([0, 2, 4, 8, 14])
    for number in range(changes):
        maker.wrong = number == changes - 1 and maker.some(0.05)
        step = maker.change()
        if step["op"] == "file":
            _resolve_again(step["actions"], random)
        maker.steps.append(step)
    graph: dict[str, Any] = {"steps": maker.steps, "maps": maker.maps, "marshal": maker.constraints()}
    graph["marshal"].setdefault("local_unique_id", "unique")
    if any(step["op"] == "state_of" for step in maker.steps):
        # They are of no effect here, but not all maps are made where the first state is marshalled.
        graph["marshal"].pop("locations", None)
        # Of the definition of an empty filesystem Go's library makes a state that it cannot marshal.
        for each in maker.maps:
            if each["state"] is not None and maker.steps[each["state"]]["op"] not in _WITH_FILES:
                each["state"] = None
    if maker.some(0.3):
        graph["caps"] = random.choice([[], ["exec.meta.setsdefaultpath"], ["source.image", "unknown"]])
    return graph


def _resolve_again(actions: list[dict[str, Any]], random: Random) -> None:
    """Let a copy take the same bound actions as an earlier copy of this step, or none."""
    marks: list[int] = []

    def visit(chain: list[dict[str, Any]]) -> None:
        for each in chain:
            if "again" in each:
                del each["again"]
                if marks:
                    each["again"] = random.choice(marks)
            if "bound" in each:
                visit(each["bound"])
                marks.append(each["mark"])

    visit(actions)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---- in Python


def build(graph: dict[str, Any], record: Record) -> llb.Definition:
    """The definition of the graph's last state."""
    return _Builder(graph, record).definition()


class _Builder:
    def __init__(self, graph: dict[str, Any], record: Record) -> None:
        self.graph = graph
        self.call = record.call
        self.used = record.used
        self.states: list[llb.State] = []
        self.maps: dict[int, llb.SourceMap] = {}

    def definition(self) -> llb.Definition:
        for step in self.graph["steps"]:
            self.states.append(self.state(step))
        return self.marshal(self.states[-1])

    def marshal(self, state: llb.State) -> llb.Definition:
        caps = {} if self.graph.get("caps") is None else {"caps": self.graph["caps"]}
        result = self.call(state.marshal, **caps, **self.constraints(self.graph["marshal"]))
        assert isinstance(result, llb.Definition)
        return result

    def state(self, step: dict[str, Any]) -> llb.State:
        made = self._state(step)
        assert isinstance(made, llb.State)
        return made

    def _state(self, step: dict[str, Any]) -> Any:
        op, text = step["op"], step.get("text", "")
        more = self.constraints(step.get("constraints", {}))
        base = self.states[step.get("state", 0)] if self.states else llb.scratch()
        others = [self.states[each] for each in step.get("states", ())]
        match op:
            case "scratch":
                return self.call(llb.scratch)
            case "image":
                return self.call(llb.image, text, **step["image"], **more)
            case "local":
                return self.call(llb.local, text, **step["local"], **more)
            case "git":
                options = dict(step["git"])
                if locator := options.pop("bundle", None):
                    stores = (options.pop("bundle_session", ""), options.pop("bundle_store", ""))
                    options["bundle"] = self.call(llb.GitBundle, locator, *stores)
                return self.call(llb.git, text, step["text2"], **options, **more)
            case "http":
                return self.call(llb.http, text, **_with_owner(step["http"]), **more)
            case "oci_layout":
                return self.call(llb.oci_layout, text, **step["layout"], **more)
            case "image_blob":
                return self.call(llb.image_blob, text, **_with_owner(step["layout"]), **more)
            case "oci_layout_blob":
                return self.call(llb.oci_layout_blob, text, **_with_owner(step["layout"]), **more)
            case "run":
                return self.run(base, step["run"], more)
            case "get_mount":
                assert isinstance(base, llb.ExecState)
                return self.call(base.get_mount, text)
            case "added_mount":
                assert isinstance(base, llb.ExecState)
                return self.call(base.get_mount, text, keep_source=True)
            case "root":
                assert isinstance(base, llb.ExecState)
                self.used.add("ExecState.root")
                return base.root
            case "file":
                return self.call(base.file, self.actions(step["actions"], {}), **more)
            case "merge":
                return self.call(llb.merge, others, **more)
            case "diff":
                return self.call(llb.diff, *others, **more)
            case "requires":
                return self.call(base.requires, text, *others)
            case "state_of":
                return self.call(llb.state_of, self.marshal(base))
            case "reset":
                return self.call(base.reset, others[0])
            case "platform":
                return self.call(base.platform, _platform(step["platform"]))
            case "add_env" | "add_extra_host":
                return self.call(getattr(base, op), text, step["text2"])
            case "add_ulimit":
                return self.call(base.add_ulimit, **step["ulimit"])
            case "dir" | "user" | "hostname" | "network" | "security" | "cgroup_parent" | "with_image_config":
                return self.call(getattr(base, op), text)
        raise AssertionError(op)

    def constraints(self, said: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(said)
        if "platform" in made:
            made["platform"] = _platform(made["platform"])
        if "progress_group" in made:
            made["progress_group"] = llb.ProgressGroup(**made["progress_group"])
        if "resources" in made:
            made["resources"] = self.call(llb.LinuxResources, **made["resources"])
        if "locations" in made:
            made["locations"] = [
                self.source_map(each["map"]).at(*[llb.Range(*span) for span in each["ranges"]])
                for each in made["locations"]
            ]
        return made

    def source_map(self, index: int) -> llb.SourceMap:
        if index not in self.maps:
            said = self.graph["maps"][index]
            state = None if said["state"] is None else self.states[said["state"]]
            self.maps[index] = self.call(
                llb.SourceMap,
                said["filename"],
                base64.b64decode(said["data"]),
                language=said["language"],
                state=state,
            )
        return self.maps[index]

    def run(self, base: llb.State, said: dict[str, Any], more: dict[str, Any]) -> Any:
        options = {key: value for key, value in said.items() if key not in ("add_later", "shlex", "args")}
        options["mounts"] = [self.mount(each) for each in said["mounts"]]
        for key in ("env", "extra_hosts"):
            if key in options:
                options[key] = dict(options[key])
        if "devices" in options:
            options["devices"] = [self.call(llb.Device, **each) for each in options["devices"]]
        if "ulimits" in options:
            options["ulimits"] = [self.call(llb.Ulimit, **each) for each in options["ulimits"]]
        if "proxy" in options:
            options["proxy"] = self.call(llb.ProxyEnv, **options["proxy"])
        return self.call(base.run, said.get("shlex") or said["args"], **options, **more)

    def mount(self, said: dict[str, Any]) -> Any:
        options = {key: value for key, value in said.items() if key != "kind"}
        if "source" in options:
            options["source"] = self.states[options["source"]]
        kinds: dict[str, Callable[..., Any]] = {
            "bind": llb.BindMount,
            "cache": llb.CacheMount,
            "tmpfs": llb.TmpfsMount,
            "secret": llb.SecretMount,
            "secret_env": llb.SecretEnv,
            "ssh": llb.SSHMount,
        }
        return self.call(kinds[said["kind"]], **options)

    def actions(self, chain: list[dict[str, Any]], bound: dict[int, llb.BoundActions]) -> llb.FileAction:
        made = llb.FileAction()
        for said in chain:
            options = {key: value for key, value in said.items() if key not in _ACTION_KEYS}
            if "owner" in said:
                options["chown"] = _owner(said["owner"])
            if said["kind"] == "mkfile":
                options["data"] = base64.b64decode(said.get("data", ""))
            if said["kind"] in ("mkdir", "mkfile", "rm"):
                made = self.call(getattr(made, said["kind"]), said["path"], **options)
                continue
            if said["kind"] == "symlink":
                made = self.call(made.symlink, said["path"], said["path2"], **options)
                continue
            if "mode_str" in said:
                options["mode"] = said["mode_str"]
            source: llb.State | llb.BoundActions = self.states[said["from"]]
            if "again" in said:
                source = bound[said["again"]]
            elif "bound" in said:
                inner = self.actions(said["bound"], bound)
                source = bound[said["mark"]] = self.call(inner.with_state, self.states[said["from"]])
            made = self.call(made.copy, source, said["path"], said["path2"], **options)
        return made


_ACTION_KEYS = frozenset({"kind", "path", "path2", "owner", "data", "mode_str", "from", "bound", "mark", "again"})


def _owner(said: Mapping[str, Any]) -> llb.Chown:
    return llb.Chown(
        said.get("user_name", said.get("user_id")),
        said.get("group_name", said.get("group_id")),
    )


def _with_owner(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if key == "chown" else value for key, value in said.items()}


def _platform(said: Mapping[str, Any]) -> llb.Platform:
    return llb.Platform(**{**said, "os_features": tuple(said.get("os_features", ()))})


# ---- what there is to use


def everything() -> set[str]:
    """All that a `Record` must have seen: every function that makes or changes a graph, and each of its arguments."""
    state, action = llb.State, llb.FileAction
    functions: list[Callable[..., Any]] = [
        *(llb.image, llb.local, llb.git, llb.http, llb.oci_layout, llb.image_blob, llb.oci_layout_blob, llb.scratch),
        *(
            llb.merge,
            llb.diff,
            llb.state_of,
            llb.GitBundle,
            llb.LinuxResources,
            llb.SourceMap,
            llb.ProxyEnv,
            llb.Ulimit,
            llb.Device,
        ),
        *(llb.BindMount, llb.CacheMount, llb.TmpfsMount, llb.SecretMount, llb.SecretEnv, llb.SSHMount),
        *(state.run, state.file, state.requires, state.reset, state.with_image_config, state.marshal, state.platform),
        *(state.add_env, state.dir, state.user, state.hostname, state.network, state.security, state.add_extra_host),
        *(state.add_ulimit, state.cgroup_parent, llb.ExecState.get_mount),
        *(action.copy, action.mkdir, action.mkfile, action.rm, action.symlink, action.with_state),
    ]
    found = {"ExecState.root"} | {f"constraints({each})" for each in llb.ConstraintOptions.__annotations__}
    for function in functions:
        name = function.__qualname__.removeprefix("FileAction.")
        found.add(name)
        found |= {f"{name}({each})" for each in inspect.signature(function).parameters if each != "self"}
    # A file of the oracle has a state or none; definitions are tested by the unit tests.
    return found - {"SourceMap(definition)"}
