"""Feature views.

product.py   features of a product
user.py      features of a user
affinity.py  affinity of a candidate to its user, computed on demand
storage.py   storage tags: how features are stored in the online store
"""
