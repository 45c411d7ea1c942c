"""The subcommands of `consume`, one file each.

A command parses, calls the one function that does the work, and prints what came of it; heavy libraries are imported
inside it, so that `consume --help` answers at once.
"""
