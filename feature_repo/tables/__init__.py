"""Storage without Feast: Arrow tables and NumPy arrays in, Arrow tables and NumPy arrays out.

delta.py       offline tables
quarantine.py  where bad input goes, with its reason
"""
