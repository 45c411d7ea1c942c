"""Feature views.

product.py    features of a product
user.py       features of a user
affinity.py   affinity of a candidate to its user, computed on demand
storage.py    storage tags: how features are stored in the online store
view_tags.py  tags of views: what writes them, and what may be compared
"""
