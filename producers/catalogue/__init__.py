"""What a shop hands in: the day's products compared with what is known.

ingest.py  new, changed, unchanged, gone: the table `product_catalogue`
validate.py  a block of products checked
versions.py      what is known of products, by digests
row_hash.py  digests of columns and rows, without an object per value
image_hashes.py  pictures hashed, as few read as possible
pack.py          a shop's pictures put into one
"""
