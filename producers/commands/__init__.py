"""One file for each subcommand of `produce`: its options and what it prints.

The files of options, tower_options.py and tuning_options.py, serve `encoder`;
picture_judge.py, picture_match.py and picture_swap.py are subcommands of `picture`.

A subcommand imports what it needs when it runs, so that `produce --help` starts fast.
"""
