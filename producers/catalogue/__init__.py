"""The day's products compared with the stored ones: the table `product_catalogue`.

ingest.py           finds new, changed, unchanged and gone products, and writes them
summary.py          what ingesting did, in counts and in lines
validate.py         checks a block of a products table
optional_columns.py seller, stock, sales and further images, which a table may lack
image_paths.py      paths of images, made absolute
prices.py           prices as shops write them, with marks and currencies
decimal_mark.py     decimal point or comma, an option
repeated_ids.py     product ids of several rows, and those spelled in several ways
activity.py         which products have left the table, and which are back
fingerprint.py      the fingerprint of a version of a product
stored_versions.py  the stored versions of products, by hash
row_hash.py         hashes of whole columns and rows
image_bytes.py      bytes of images in the table, read again for the rows to write
image_hashes.py     content hashes of images, reading as few images as possible
pack.py             copies the images of a products table into an LMDB
forget_packed.py    deletes the packed pictures of forgotten products
"""
