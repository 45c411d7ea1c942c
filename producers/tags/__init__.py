"""Tags of products (child age, child gender, category), predicted from vectors and titles by classifiers.

run.py             `produce tags`: fits the taggers and writes `product_tags` and `tag_predictions`
tagger_set.py      the taggers of all tags, fitted on one label file
stacking.py        the tagger in use: several variants combined
tagger.py          one tag predicted from one variant: fitted and calibrated
variants.py        the features that each variant uses
classifier.py      a classifier that predicts its training rows as if they were new
calibration.py     temperature scaling of probabilities
split.py           which labelled products train and test
labels.py          reads and checks the label file
embedding_rows.py  embedding rows of one encoder version, with their titles
"""
