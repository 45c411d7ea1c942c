"""What the features mean: definitions that those who write them and those who read them share, in NumPy.

affinity.py        how close a candidate is to what its user clicked: the names, and the one definition
similarity.py      cosines, of one user's candidates and of a whole log, that depend on nothing but their own row
interest.py        what a user's clicks say of the user: one click at a time, or whole histories at once
affinity_frame.py  the same of a pandas frame, for Feast
affinity_torch.py  the same in torch, with gradients
neighbours.py      what the products nearest to one earned
missing.py         what is not known of a product, what was predicted instead, how old it is
ages.py            child age stages, and how a distribution over them moves while children grow

Everything works on n rows at once. Missing is NaN (-1 for codes) and stays so, never zero. Beside NumPy,
affinity_frame.py alone imports pandas, and affinity_torch.py alone torch.
"""
