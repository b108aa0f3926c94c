"""Prune what is old: ``python examples/library/prune_old.py DAYS [KEEP_BYTES]``.

What was not used for so many days goes, but for as much as is to be kept.
"""

import sys
from datetime import timedelta

from cogkit.buildkit import Client

days = timedelta(days=float(sys.argv[1]))
keep_bytes = int(sys.argv[2]) if len(sys.argv) > 2 else 0

with Client.connect() as client:
    before = sum(record.size for record in client.disk_usage())
    freed = 0
    for record in client.prune(keep_duration=days, reserved_space=keep_bytes):
        freed += record.size
        print(f"{record.size:>12,}  {record.description}")
    print(f"{freed:,} of {before:,} bytes")
