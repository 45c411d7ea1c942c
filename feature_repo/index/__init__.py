"""The products of one encoder version as an index: filter them, and find the nearest by vector or by words.

rows.py           the columns of an indexed product
segment.py        a part of an index on disk: written once, opened by mmap
manifest.py       which segments an index has; replaced atomically
production.py     the index of the encoder version in production
filters.py        which products a search may return
nearest.py        the nearest vectors of one segment, exact or over a graph
product_index.py  an open index: filter products, find the nearest, read rows
update.py         adds, replaces, hides and forgets products; merges segments
recall.py         recall against exact search, also under filters
keywords.py       BM25 over the words of titles
saved_searches.py searches saved under a name, with what they last returned
segmentation.py   the words of a title, Chinese or English

An index is a folder `index/ENCODER` beside the Delta tables. It has a main segment, which is never changed, and a small
one with the products that were added since; a product that is replaced or gone is hidden by a flag. Both are merged
when the small one has grown. Up to EXACT_ROWS products every search is exact.
"""
