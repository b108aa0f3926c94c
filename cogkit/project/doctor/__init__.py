"""What may be wrong with a project, and what of it can be put right without a doubt.

The checks are those of Cog (``pkg/doctor``), with its words, and some of our own.  `edits` and `python_fixes` change
text only where a finding says so, and refuse where that could change what the code does.  Nothing here prints.
"""
