"""Groups of products that are the same: `product_group`, its journal, and the scored pairs that it comes from.

products.py    the active products with their vectors and pictures
candidates.py  pairs that are near in one of several spaces
train.py       the pair verifier, trained on judged pairs
context.py     what the other candidates of two products say about a pair
matching.py    train and score in memory
clustering.py  pairs to groups of bounded diameter
group_ids.py   ids that stay as products come and go
pairs.py       the table `product_pair`
group_rows.py  the tables `product_group` and `product_group_journal`
run.py         the increment of a day
"""
