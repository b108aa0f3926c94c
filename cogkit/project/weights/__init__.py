"""The weights of a model: files of the project in layers of their own, and managed weights that are not in the image.

`layers` decides which files are weights; `managed` reads ``weights.lock``, which Cog's ``weights import`` writes.
"""
