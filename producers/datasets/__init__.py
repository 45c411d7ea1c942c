"""datasets.

shop/  a generated shop whose truth is known
imports/  real data sets, brought into the same shape
"""
