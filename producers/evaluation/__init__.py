"""How well an encoder retrieves: on MUGE, on a folder of pictures with texts, by TREC judgements.

encoding.py      texts and pictures to vectors, by a checkpoint or an export
retrieval.py     the best pictures for each text
measures.py      recall, and the measures of trec_eval, with intervals
image_folder.py  pictures and texts in Hugging Face's image-folder form
on_muge.py       MUGE: an encoder, or a file of predictions
on_images.py     a folder of pictures: its own texts, or queries with judgements
run.py           one JSON a run, and many runs as a table
"""

from feature_repo import extras

extras.require("encode", "pytrec_eval", "scipy")
