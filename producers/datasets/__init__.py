"""Data that feeds the chain: a generated shop, and importers of public data sets. Writes no features.

shop/     a generated shop with known ground truth
imports/  public data sets in the columns of Vitrine
"""
