"""Ignore patterns as moby/patternmatcher reads them: the patterns, Go's regular expressions, and their automaton."""
