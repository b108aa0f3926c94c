"""tonistiigi/fsutil's file-sync protocol.

Pure state machines (bytes in, bytes out): `stat`, `packet`, `sender`, `receiver`, `validator`.  Pure functions:
`gopath`, `goregexp`, `patterns`, `dirmatch`, `filter`.  Disk access, and nothing else does any: `walk` and `follow`
read, `diskwriter` writes.
"""
