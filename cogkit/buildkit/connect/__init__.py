"""Ways to a daemon: addresses, the streams that lead there, and why one does not."""
