"""From one encoder to the next, while readers are served.

machine.py  the states: start, advance, roll back, retire
versions.py the rows of one encoder version: write them offline and online, delete them
cost.py     what an upgrade would write, and how long that took before
"""
