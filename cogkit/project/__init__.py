"""What a Cog project is on disk: its ``cog.yaml``, its requirements, its ``.cog/`` folder.

Nothing here talks to a builder, and nothing here writes outside ``.cog/``.
"""
