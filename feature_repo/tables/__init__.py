"""Storage without Feast: Arrow tables and NumPy arrays in, Arrow tables and NumPy arrays out.

on_ray/          the join and the materialization on more than one machine
"""
