"""The command line: one module per command, none with logic of its own.

A command turns its flags into options, calls the layer below, and shows what comes back.  Modules here import at their
top only what ``cogkit --help`` needs; everything heavier is imported inside the command that uses it.
"""
