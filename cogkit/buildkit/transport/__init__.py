"""HTTP/2, gRPC and the tunnel around the session as state machines: bytes in, events out, no sockets."""
