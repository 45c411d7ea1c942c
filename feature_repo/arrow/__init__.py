"""Conversions between Arrow columns and NumPy arrays. Imports no storage package.

field.py       description of one feature: value type, storage, NumPy type
columns.py     one feature of n rows
take.py        rows by position; list columns to matrices and back
text.py        one form for texts that look equal: ids, titles, labels
timestamps.py  timestamps as integers
timestamp_texts.py  timestamps from texts and numbers, as people and databases write them
"""
