"""Importers of public data sets: one module converts one set to the folder of a shop. The project contains no data.

registry.py        the importers by name
folder.py          the tables of an import, and how they are written
flipkart_1050.py   an Indian marketplace: images, categories, some child genders
grocery.py         shoppers' photos and the shop's own images of groceries
beibei_zh.py       a small Chinese mother-and-baby shop
mum_baby.py        purchases and children's birthdays
movielens.py       ratings of films with timestamps
muge.py            pictures with Chinese queries or captions
abt_buy.py         pairs of product descriptions from two shops
"""
