"""Tells a story word by word."""

from cog import BaseRunner, ConcatenateIterator, Input

WORDS = "Once upon a time there was a"


class Runner(BaseRunner):
    def run(
        self,
        hero: str = Input(description="Who the story is about", default="llama"),
        words: int = Input(description="How many words of it", ge=1, le=8, default=8),
    ) -> ConcatenateIterator[str]:
        """Give one word after the other; whoever asks sees them as they come."""
        for word in [*WORDS.split(), hero][:words]:
            yield f"{word} "
