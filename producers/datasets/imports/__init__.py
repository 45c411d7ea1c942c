"""Real data sets, brought into the shape of a shop's folder: one file per set. The project contains none of their data.

registry.py  the sets by name
folder.py          what a set gave, written as a shop's folder
ages.py            a stated age as a child age stage
flipkart_1050.py   a marketplace: pictures, categories, some child genders
grocery.py         shoppers' photos and the shop's own pictures of groceries
beibei_zh.py       a small Chinese mother-and-baby shop
mum_baby.py        purchases and children's birthdays
movielens.py       a timestamped log of film ratings
abt_buy.py         pairs of descriptions from two shops
"""
