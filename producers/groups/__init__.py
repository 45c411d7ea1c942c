"""Groups of products that are the same: `product_group`, its journal, and the scored pairs that it comes from.

matching_index.py  the products that are compared, as an index
pictures.py        their pictures in numbers
products.py        all of them at once, for a training
candidates.py      pairs that are near in one of several spaces, by an exact search
train.py           the pair verifier, trained on judged pairs
context.py         features of a pair from the other candidates of its two products
matching.py        train and score in memory
changed_pairs.py   which pairs and groups a changed product affects
clustering.py      groups in which every two products are a probable pair
group_ids.py       ids that groups keep while products come and go
pairs.py           the table `product_pair`
group_rows.py      the tables `product_group` and `product_group_journal`
run.py             `produce groups`: compares new and changed products, writes the groups that change
"""
