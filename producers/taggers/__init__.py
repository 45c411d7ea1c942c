"""Tags from vectors: child age stage, child gender, category.

rows.py         embedding rows of one encoder version, with their titles
labels.py       what people said, checked
split.py        which labelled products train, calibrate and test
variants.py     what each variant sees
calibration.py  probabilities that mean what they say
tagger.py       one tag from one variant: fitted, calibrated, honest about its own training products
"""
