"""The playground: a page in the browser for trying a running model, and the small server that it comes from."""
