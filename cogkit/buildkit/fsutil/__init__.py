"""tonistiigi/fsutil's file-sync protocol.

Pure state machines (bytes in, bytes out): `stat`, `packet`, `sender`, `receiver`, `validator`.  Pure functions:
`gopath`, `filter`, and the package `patternmatcher`.  Disk access, and nothing else does any: `walk` and `follow`
read, `diskwriter` writes.
"""
