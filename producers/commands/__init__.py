"""One file for each subcommand of `produce`: its options and what it prints; tower_options.py serves `encoder`.

A subcommand imports what it needs when it runs, so that `produce --help` starts fast.
"""
