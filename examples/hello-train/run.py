"""Greets with the word it was trained on."""

from pathlib import Path as LocalPath

from cog import BaseRunner, Input, Path


class Runner(BaseRunner):
    def setup(self, weights: Path | None = None) -> None:
        """Without weights of a training, the greeting is the usual one."""
        self.word = LocalPath(str(weights)).read_text() if weights else "hello"

    def run(self, name: str = Input(description="Whom to greet", default="world")) -> str:
        """Answer one request."""
        return f"{self.word} {name}"
