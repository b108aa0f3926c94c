"""SSH agents that a build may use: the user's own, or one made here of key files.

Nothing here speaks to a builder; `session.services.ssh` does.
"""
