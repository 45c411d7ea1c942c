"""Feature views.

product.py   what is known of a product
user.py      what is known of a user
affinity.py  how close the two are, computed when asked for
storage.py   how their features lie in the online store
"""
