"""`produce upgrade`: replaces the encoder in production while readers are served.

machine.py   the states: start, advance, roll back, retire
versions.py  the rows of one encoder version: write them offline and online, delete them
both_versions.py  the versions whose rows are written, for commands that write rows of both
cost.py      rows, bytes and seconds that an upgrade would take
"""
