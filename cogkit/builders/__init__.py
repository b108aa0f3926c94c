"""Which builder a build goes to: named builders, farms of many, and one of the user's own.

- `choice` decides where a build goes when nothing, or a builder's name, is said.
- `config_file` is the user's list of builders.
- `private` starts and finds the buildkitd that is the user's own; `supervisor` is the process that looks after it.
- `placement` decides which node of a farm builds a project.

This package must not know what is built, or show anything.
"""
