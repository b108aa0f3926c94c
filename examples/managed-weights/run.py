"""Greets in a language whose words are a weight, mounted at /src/greetings when the model runs."""

import json
from pathlib import Path

from cog import BaseRunner, Input


class Runner(BaseRunner):
    def setup(self) -> None:
        self.words = json.loads(Path("/src/greetings/words.json").read_text())

    def run(self, language: str = Input(description="Two letters", default="en")) -> str:
        return self.words.get(language, self.words["en"])
