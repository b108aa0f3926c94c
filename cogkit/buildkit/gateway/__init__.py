"""Being the frontend of one's own build, through the daemon's LLBBridge."""
