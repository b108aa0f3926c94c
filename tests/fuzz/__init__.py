"""Fuzzing: targets that take arbitrary bytes, their corpus, and state machines that play the peer.

``make fuzz SECONDS=600`` runs every target under atheris for that time; `test_corpus` runs them on the corpus, without
atheris, with all other tests.
"""
