"""Pictures: read, checked, converted and resized.

decoding.py     decode images; reject unusable ones
colours.py      convert decoded images to 8-bit sRGB
formats.py      recognize file formats by their first bytes
geometry.py     how a picture is resized and cropped for an image tower
image_store.py  images in an LMDB
picture_folders.py  pictures by the hash of their content, in an LMDB or a bucket
read_ahead.py   images in a bucket, several at a time
thumbnails.py   small copies for pages
"""
