"""Media types of file names, and the extension of a file with a media type.

The same on every machine: what the system says of them is not asked.  Where Python and Cog (``pkg/util/mime``) differ,
Cog counts.
"""

from __future__ import annotations

import mimetypes
import posixpath

_COGS = {
    "application/gzip": ".gz",
    "application/octet-stream": ".bin",
    "application/x-ndjson": ".ndjson",
    "application/x-tar": ".tar",
    "application/xml": ".xml",
    "audio/aac": ".aac",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".oga",
    "audio/opus": ".opus",
    "audio/wav": ".wav",
    "audio/webm": ".weba",
    "font/otf": ".otf",
    "font/ttf": ".ttf",
    "font/woff": ".woff",
    "font/woff2": ".woff2",
    "image/bmp": ".bmp",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/svg+xml": ".svg",
    "image/tiff": ".tiff",
    "image/vnd.microsoft.icon": ".ico",
    "image/webp": ".webp",
    "image/x-ms-bmp": ".bmp",
    "model/gltf-binary": ".glb",
    "model/mtl": ".mtl",
    "model/obj": ".obj",
    "text/html": ".html",
    "text/javascript": ".js",
    "text/markdown": ".md",
    "text/plain": ".txt",
    "video/3gpp": ".3gp",
    "video/mp2t": ".ts",
    "video/mp4": ".mp4",
    "video/mpeg": ".mpeg",
    "video/ogg": ".ogv",
    "video/webm": ".webm",
    "video/x-msvideo": ".avi",
}
_TYPES = {extension: kind for kind, extension in _COGS.items()} | {".jpeg": "image/jpeg", ".ogg": "audio/ogg"}


def type_of_name(name: str) -> str:
    """The media type of a file with this name."""
    extension = posixpath.splitext(name)[1].lower()
    known = mimetypes.MimeTypes(filenames=())
    return _TYPES.get(extension) or known.types_map[True].get(extension) or "application/octet-stream"


def extension_of(kind: str) -> str:
    """The extension, with its dot, of a file of a media type; empty if none is known."""
    kind = kind.partition(";")[0].strip().lower()
    return _COGS.get(kind) or mimetypes.MimeTypes(filenames=()).guess_extension(kind) or ""
