"""The session: our own HTTP/2 and gRPC server, which the daemon calls back over a stream that we opened to it.

`http2` and `grpc` are state machines without I/O, `session` joins them to an event loop, `service` says what a service
looks like, and ``services/`` holds one file for each.  ``docs/protocol-session.md`` tells the protocol.
"""
