"""What other builders call what cogkit calls otherwise, or does not have: the hint for who types a peer's word.

The names are those of docker, buildx, buildctl, podman, kaniko and cog.  This file must not name a flag or command that
cogkit has under the same name in the same place.
"""

from __future__ import annotations

from collections.abc import Mapping

_NO_IMAGES = "cogkit keeps no images: cogkit du shows what the builder's cache holds"
_NO_CONTAINERS = "cogkit keeps no containers: what cogkit run, exec and serve start ends with them"
_PRUNE = "cogkit prune deletes what is in the builder's cache"
_BUILDER = "cogkit builder looks after builders"
_TLS = "a builder behind TLS takes --tlscacert, --tlscert and --tlskey"
_RAWJSON = "--progress rawjson writes the build's events to standard error as JSON"
_CACHE_TO = "--cache-to type=registry,ref=IMAGE writes a cache to a registry"
_ENV = "a build takes --build-arg NAME=VALUE; cogkit exec takes --env"
_NO_MOUNTS = "steps get folders by --build-context NAME=DIR and RUN --mount=type=bind,from=NAME"

COMMANDS: Mapping[str, str] = {
    "attach": _NO_CONTAINERS,
    "bake": "cogkit builds one target at a time: cogkit build --target STAGE",
    "base-image": "cogkit dockerfile shows the image that a project starts from",
    "buildx": "leave buildx out: cogkit build",
    "compose": "cogkit builds one project at a time: cogkit build FOLDER",
    "container": _NO_CONTAINERS,
    "create": "cogkit builder create adds a builder",
    "debug-workers": "cogkit builder inspect shows a builder's workers",
    "docker": "leave docker out: cogkit build",
    "image": _NO_IMAGES,
    "images": _NO_IMAGES,
    "inspect": "cogkit builder inspect shows a builder, cogkit imagetools inspect an image",
    "install": "cogkit builder install builds the buildkitd of the private builder",
    "kill": _NO_CONTAINERS,
    "load": "cogkit build --load brings an image into docker or podman",
    "logout": "docker logout REGISTRY removes a login, which cogkit shares with docker",
    "logs": "cogkit history logs shows what a build printed",
    "ls": "cogkit builder ls shows the builders",
    "manifest": "cogkit imagetools create joins images, cogkit imagetools inspect shows one",
    "policy": "--source-policy-file FILE says what a build may fetch",
    "prune-histories": "cogkit history rm deletes what the builder remembers of builds",
    "ps": _NO_CONTAINERS,
    "pull": "the builder fetches images itself: cogkit build --pull asks for newer base images",
    "rm": "cogkit builder rm forgets a builder",
    "rmi": f"cogkit keeps no images: {_PRUNE}",
    "save": "cogkit build -o type=docker,dest=FILE writes the image to a file",
    "sh": "cogkit exec bash starts a shell in the project's image",
    "shell": "cogkit exec bash starts a shell in the project's image",
    "start": "cogkit builder start starts the private builder",
    "stop": "cogkit builder stop ends the private builder",
    "system": "cogkit du shows the builder's cache, cogkit prune deletes from it",
    "tag": "cogkit build -t NAME names an image, cogkit imagetools create gives one a further name",
    "up": "cogkit serve runs a model's HTTP server",
    "use": "cogkit builder use chooses a builder",
}
"""Peers' commands, and ours for the same."""

SUBCOMMANDS: Mapping[str, Mapping[str, str]] = {
    "builder": {
        "build": "leave builder out: cogkit build",
        "du": "cogkit du shows what a builder's cache holds",
        "prune": _PRUNE,
        "info": "cogkit builder inspect shows a builder",
    },
    "history": {
        "export": "cogkit history inspect shows what the builder remembers of a build",
        "open": "cogkit history inspect shows what the builder remembers of a build",
        "trace": _RAWJSON.replace("--progress", "cogkit build --progress"),
    },
}
"""The same for a command with subcommands."""

FLAGS: Mapping[str, str] = {
    "-H": "--addr ADDRESS names the builder",
    "-e": _ENV,
    "-v": _NO_MOUNTS,
    "--build-args": "--build-arg NAME=VALUE is given once for each argument",
    "--build-context-dir": "--context DIR names the folder to build",
    "--buildkitd-config": _BUILDER,
    "--cache-repo": _CACHE_TO,
    "--config": "DOCKER_CONFIG=DIR in the environment names docker's folder of logins",
    "--debug-json-cache-metrics": _RAWJSON,
    "--dest": "-t NAME --push names the image and pushes it",
    "--destination": "-t NAME --push names the image and pushes it",
    "--detach": "cogkit builds in the foreground: let the shell put it in the background",
    "--device": "--allow device=NAME lets steps use a device",
    "--disable-content-trust": "leave it out: images are checked by their digests",
    "--driver": "the address says how a builder is reached, such as docker-container://NAME or kube-pod://POD",
    "--driver-opt": "the address says how a builder is reached, such as docker-container://NAME or kube-pod://POD",
    "--env": _ENV,
    "--export-cache": "--cache-to type=TYPE,… writes a cache",
    "--exporter": "-o type=TYPE,… says where the result goes",
    "--exporter-opt": "-o type=TYPE,KEY=VALUE says where the result goes",
    "--format": "--json writes JSON where a command has it; the format of an image is -o type=oci or type=docker",
    "--frontend-opt": "--opt KEY=VALUE sets an option of the frontend",
    "--gpus": "cogkit run, exec, serve and train take --gpus; steps of a build use --allow device=NAME",
    "--host": "--addr ADDRESS names the builder",
    "--import-cache": "--cache-from type=TYPE,… reads a cache",
    "--invoke": "cogkit exec COMMAND runs a command in the image",
    "--labels": "--label NAME=VALUE is given once for each label",
    "--local-src": "--local NAME=DIR names a folder of the frontend",
    "--log-format": _RAWJSON,
    "--log-level": "--debug shows tracebacks, --progress plain every line of the build",
    "--manifest": "cogkit build --platform A,B makes one index of several platforms",
    "--no-progress": "--progress none shows no progress",
    "--no-push": "nothing is pushed without --push",
    "--oci-layout": "--build-context NAME=oci-layout://FOLDER names an image in a folder",
    "--on": "cogkit exec COMMAND runs a command in the image",
    "--outputs": "-o OUTPUT is given once for each output",
    "--platforms": "--platform OS/ARCH,… names the platforms",
    "--print": "--call outline or --call targets asks the frontend instead of building",
    "--secrets": "--secret id=ID,… is given once for each secret",
    "--silent": "-q shows only what was made",
    "--tags": "-t NAME is given once for each name",
    "--tls": _TLS,
    "--tlsverify": _TLS,
    "--trace": _RAWJSON,
    "--verbose": "--progress plain shows every line of the build, --debug tracebacks",
    "--volume": _NO_MOUNTS,
}
"""Peers' flags, and ours for the same."""


def way_for_command(name: str, group: str | None = None) -> str | None:
    """Our way for a command of a peer.

    Args:
        name: The peer's command.
        group: The command of ours whose subcommand it would be; None for the program itself.

    Returns:
        A hint; None for what no peer has.
    """
    return COMMANDS.get(name) if group is None else SUBCOMMANDS.get(group, {}).get(name)


def way_for_flag(name: str) -> str | None:
    """Our way for a flag of a peer; None for what no peer has."""
    return FLAGS.get(name)
