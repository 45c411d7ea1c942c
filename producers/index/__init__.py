"""`produce index`: the newest vectors, titles, prices and tags of the products on sale, as an index.

run.py         builds an index, or follows the tables that it is made from
changes.py     what was added to these tables since the index read them
texture.py     describes the texture of pictures
word_model.py  learns from titles how much a picture looks like each word
"""
