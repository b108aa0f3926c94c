"""The session: services that the daemon calls back over a stream which we opened to it.

`session` joins the server of `cogkit.buildkit.transport` to an event loop, `service` says what a service looks like,
and ``services/`` holds one file for each.  ``docs/protocol-session.md`` tells the protocol.
"""
