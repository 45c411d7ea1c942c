"""`produce index`: the newest vectors, titles, prices and tags of the products on sale, as an index.

run.py         builds an index, or brings it up to date with its tables
changes.py     what was added to these tables since the index read them
texture.py     describes the texture of pictures
word_model.py  scores how much a picture looks like each word, learned from titles
"""
