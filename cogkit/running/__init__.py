"""Running what was built: processes on the builder that feel as if they were here.

This package turns a project or an image into a filesystem of the builder, starts a container on it and joins the
container's processes, ports and files to this machine.  It must not know flags or render anything.
"""
