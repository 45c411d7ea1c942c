"""Captions of catalogue images (`product_caption`), which state only what the tags are sure of.

run.py         `produce captions`: captions every product version that this captioner has not captioned yet
facts.py       what the tags are sure of
prompts.py     the options, and the words with which captions begin
candidates.py  writes several captions for each image and chooses the best
edit_log.py    keeps merchants' edits, and writes them to a file
edits.py       `produce captions --learn`: labels from the captions that merchants edited
"""
