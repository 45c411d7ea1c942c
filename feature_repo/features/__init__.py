"""Definitions of the computed features in NumPy, shared by producers and consumers.

    affinity.py        affinity of a candidate to its user's clicks: names and definition
    similarity.py      cosines, for one user's candidates and for a whole log, reproducible row by row
    interest.py        a user's interest from their clicks: one click at a time, or whole histories
    affinity_frame.py  the affinity features of a pandas frame, for Feast
    affinity_torch.py  the affinity features in torch, with gradients
    neighbours.py      what the nearest products of a product earned
    missing.py         missing images, titles and tags, predicted categories, age of the vectors
    meanings.py        what each computed feature means, in a sentence
    ages.py            child age stages, and how a distribution over them shifts while children grow

All functions work on n rows at once. A missing float is NaN and a missing code -1, never zero; missing inputs give
missing results. Only affinity_frame.py imports pandas and only affinity_torch.py torch.
"""
