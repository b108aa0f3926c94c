"""The services that a session serves, one file each; none of them knows HTTP/2 or another service."""
