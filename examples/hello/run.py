"""Says what it is told."""

import cowsay
from cog import BaseRunner, Input


class Runner(BaseRunner):
    def run(self, text: str = Input(description="What to say", default="hello")) -> str:
        """Answer one request."""
        return str(cowsay.get_output_string("cow", text))
