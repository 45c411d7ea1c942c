"""arrow.

take.py  rows by number, vectors without an object per value
timestamps.py  timestamps as integers
columns.py  one feature of n rows
vectors.py  columns of lists as matrices
"""
