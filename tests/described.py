"""What a batch of a walk says of its entries, read back from its packets."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cogkit.buildkit.fsutil.batch import Batch
from cogkit.buildkit.fsutil.packet import decode_packet
from cogkit.buildkit.fsutil.stat import Stat


def entries_of(batches: Iterable[Batch]) -> list[Stat]:
    """All entries, in order."""
    found = []
    for batch in batches:
        for packet, path in zip(batch.packets, batch.paths, strict=True):
            stat = decode_packet(packet).stat
            assert stat is not None
            assert stat.path == path
            found.append(stat)
    return found


def batch_of(stats: Iterable[Stat], withheld: Collection[int] = ()) -> Batch:
    """A batch of these entries; the content of the files in places ``withheld`` may not be sent."""
    batch = Batch()
    for stat in stats:
        batch.add(stat)
    for place in withheld:
        batch.withhold(place)
    return batch
