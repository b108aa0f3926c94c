"""Managed weights: files of a model that live in a registry as artifacts of their own, and in a local store once.

The format is Cog's (``specs/draft-weights.md``, and its code where that is silent), so either program can pull what
the other one imported.  This package must not know a builder.
"""
