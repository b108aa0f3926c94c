"""Answers while it waits for others: how many there were at once is part of the answer."""

import asyncio

import cog
from cog import BaseRunner, Input


class Runner(BaseRunner):
    async def setup(self) -> None:
        """Nobody is being answered yet."""
        self.busy = 0

    @cog.concurrent(max=4)
    async def run(self, seconds: float = Input(description="How long to think", ge=0, le=10, default=0.1)) -> int:
        """Think, and say how many were thinking when this one began."""
        self.busy += 1
        at_once = self.busy
        await asyncio.sleep(seconds)
        self.busy -= 1
        return at_once
