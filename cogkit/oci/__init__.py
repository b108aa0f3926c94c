"""OCI image layouts in directories: what a build reads from them and adds to them.

Nothing here speaks to a builder; `session.services.content` does.
"""
