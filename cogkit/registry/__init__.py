"""Registries seen from this side: the user's logins, as Docker keeps them, and the tokens fetched with them.

Nothing here speaks to a builder; `session.services.auth` does.
"""
