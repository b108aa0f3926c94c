"""cogkit: a BuildKit client in Python, and a command line that builds Cog projects with it.

This package file stays empty of imports so that the command line starts fast; import what you need from
`cogkit.buildkit` (the client library), `cogkit.building`, `cogkit.project` or `cogkit.dockerfile`.
"""

__version__ = "0.1.0"
