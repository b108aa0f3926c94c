"""Learns one word, which is what this model knows."""

from pathlib import Path as LocalPath

from cog import BaseModel, Input, Path


class TrainingOutput(BaseModel):
    weights: Path


def train(word: str = Input(description="The word to learn")) -> TrainingOutput:
    """Write the word where the runner reads it."""
    weights = LocalPath("weights.txt")
    weights.write_text(word)
    return TrainingOutput(weights=Path(weights))
