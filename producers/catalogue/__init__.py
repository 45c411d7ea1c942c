"""The day's products compared with the stored ones: the table `product_catalogue`.

ingest.py           finds new, changed, unchanged and gone products, and writes them
validate.py         checks a block of a products table
stored_versions.py  the stored versions of products, by hash
row_hash.py         hashes of whole columns and rows
image_hashes.py     content hashes of images, reading as few images as possible
pack.py             copies the images of a products table into an LMDB
"""
