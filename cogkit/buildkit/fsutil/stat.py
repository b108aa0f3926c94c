"""`Stat`, what the file-sync protocol says about one entry of a tree, and its mode bits.

Only data: reading it from the disk is `walk`, its form on the wire is `packet`.
"""

from __future__ import annotations

import stat as _stat
from collections.abc import Mapping
from functools import cache

from cogkit.fast_dataclass import dataclass

# Go's os.FileMode (io/fs/fs.go): the kind in the upper bits, permissions in the lower nine.
MODE_DIR = 1 << 31
MODE_SYMLINK = 1 << 27
MODE_DEVICE = 1 << 26
MODE_NAMED_PIPE = 1 << 25
MODE_SOCKET = 1 << 24
MODE_SETUID = 1 << 23
MODE_SETGID = 1 << 22
MODE_CHAR_DEVICE = 1 << 21
MODE_STICKY = 1 << 20
MODE_IRREGULAR = 1 << 19
MODE_TYPE = MODE_DIR | MODE_SYMLINK | MODE_NAMED_PIPE | MODE_SOCKET | MODE_DEVICE | MODE_CHAR_DEVICE | MODE_IRREGULAR
MODE_PERM = 0o777

_TYPES = {
    _stat.S_IFBLK: MODE_DEVICE,
    _stat.S_IFCHR: MODE_DEVICE | MODE_CHAR_DEVICE,
    _stat.S_IFDIR: MODE_DIR,
    _stat.S_IFIFO: MODE_NAMED_PIPE,
    _stat.S_IFLNK: MODE_SYMLINK,
    # fsutil clears the socket bit, so a socket is sent as an empty regular file.
    _stat.S_IFSOCK: 0,
}


@dataclass(slots=True)
class Stat:
    """One entry of a tree (fsutil.types.Stat).

    Attributes:
        path: Relative to the root, parts joined by ``/``.
        mode: Go's ``os.FileMode`` bits, not those of stat(2).
        size: Bytes; of a hard link, the size of the file.
        mod_time: Nanoseconds since the epoch, as a signed 64-bit number.
        linkname: The target of a symbolic link as it stands there; of a hard link, the earlier path.
        devmajor: With devminor, the device that a device node stands for.
        xattrs: Extended attributes by name, or None if there are none.
    """

    path: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mod_time: int = 0
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: Mapping[str, bytes] | None = None

    @property
    def is_dir(self) -> bool:
        return bool(self.mode & MODE_DIR)

    @property
    def has_content(self) -> bool:
        """Whether the receiver may ask for its content (fsutil's ``fileCanRequestData``)."""
        return not self.mode & MODE_TYPE


@cache
def go_mode(st_mode: int) -> int:
    """``st_mode`` of stat(2) as fsutil sends it."""
    mode = st_mode & MODE_PERM | _TYPES.get(_stat.S_IFMT(st_mode), 0)
    if st_mode & _stat.S_ISUID:
        mode |= MODE_SETUID
    if st_mode & _stat.S_ISGID:
        mode |= MODE_SETGID
    if st_mode & _stat.S_ISVTX:
        mode |= MODE_STICKY
    return mode


def device_number(rdev: int) -> tuple[int, int]:
    """Major and minor as fsutil cuts ``st_rdev``; its 12 bits of major are all that it keeps."""
    return rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00
