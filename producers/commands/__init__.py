"""One file for each subcommand of `produce`: its options and what it prints.

Of the files of options, tower_options.py and tuning_options.py serve `encoder`, and picture_options.py serves
`picture`, whose further subcommands are in picture_judge.py, picture_match.py and picture_swap.py.

A subcommand imports what it needs when it runs, so that `produce --help` starts fast.
"""
