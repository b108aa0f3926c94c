"""What a client sent and called, as `tap` counts it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """What went over all connections.

    Attributes:
        sent: Bytes from the client to the daemon.
        received: Bytes from the daemon to the client.
        calls: How often each gRPC method was called, by its path, such as ``/moby.buildkit.v1.Control/Solve``.
    """

    sent: int = 0
    received: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_json(cls, text: str) -> Traffic:
        """From what `to_json` gave."""
        read = json.loads(text)
        return cls(read["sent"], read["received"], Counter(read["calls"]))

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"sent": self.sent, "received": self.received, "calls": self.calls})

    def count(self, service: str, method: str) -> int:
        """Calls of a method of the service whose full name ends so."""
        return sum(number for path, number in self.calls.items() if path.endswith(f".{service}/{method}"))
