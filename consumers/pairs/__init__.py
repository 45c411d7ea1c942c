"""Whether two products are the same, answered while the caller waits. Needs an export of the encoder, and no torch.

    products.py  what is known of a product: from the index by its id, or given by a caller
    scoring.py   the probability and the reasons of pairs

Nothing of a request is stored or logged.
"""
