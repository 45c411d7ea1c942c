"""Whether generated pictures show what their sentences ask for: measured, with intervals and chance levels.

pictures.py    pictures with the attributes that they show, or were asked to show
classifier.py  attributes from pixels, learned from real pictures
figures.py     shares with intervals, the level of chance, Fréchet distance, diversity
judge.py       all measures of a folder of generated pictures
"""
