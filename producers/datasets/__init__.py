"""Data that the chain can be run on: a generated shop, and importers of public data sets. Writes no features.

shop/     a generated shop with known ground truth
imports/  public data sets converted to the tables of a shop
"""
