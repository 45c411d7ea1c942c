"""tags.

run.py  vectors to `product_tags`; taggers/ has labels, splits, classifiers and their calibration
tagger.py  one tag from one variant: fitted, calibrated, honest about its own training products
labels.py  what people said, checked
calibration.py  probabilities that mean what they say
split.py  which labelled products train, calibrate and test
embedding_rows.py  embedding rows of one encoder version, with their titles
variants.py  what each variant sees
"""
