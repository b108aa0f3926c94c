"""The proxies of docker's config, which become build arguments, as buildx has them for every builder.

Facts are from buildx (``store/storeutil``, ``build/opt.go``).  This file must not read files itself.
"""

from __future__ import annotations

from collections.abc import Mapping

_VARIABLES = {
    "httpproxy": "HTTP_PROXY",
    "httpsproxy": "HTTPS_PROXY",
    "noproxy": "NO_PROXY",
    "ftpproxy": "FTP_PROXY",
}


def with_proxies(build_args: Mapping[str, str], proxies: Mapping[str, object], host: str = "") -> dict[str, str]:
    """The build arguments with those of the proxies that the user did not give, in any case.

    Args:
        build_args: What the user gave.
        proxies: ``proxies`` of docker's ``config.json``.
        host: The builder, which may have an entry of its own; else ``default`` counts.
    """
    entry = proxies.get(host, proxies.get("default"))
    found = dict(build_args)
    given = {name.upper() for name in build_args}
    for key, value in entry.items() if isinstance(entry, Mapping) else ():
        name = _VARIABLES.get(str(key).lower())
        if name is not None and name not in given and isinstance(value, str) and value:
            found[name] = value
    return found
