"""Features of users and products from the impression log: `user_interest` and `product_neighbours`.

impression_log.py    reads the log as codes and timestamps
product_versions.py  vectors and tags that were valid when products were shown
interests.py         computes `user_interest` from clicks
interest_digest.py   what a row of `user_interest` was made from
interest_rows.py     builds and parses rows of `user_interest`
neighbours.py        computes `product_neighbours` from the log
neighbour_versions.py  its versions that are out of date, interval by interval
neighbour_checkpoint.py  where a run continues the one before it
neighbour_state.py   the state of all products from which they are computed
neighbour_digest.py  what a row of `product_neighbours` was made from
nearest.py           the nearest products that have impressions, updated over time
cells.py             cells of the vector space, for a search among many products
cell_index.py        the search of the nearest vectors in the cells of each query
product_changes.py   changes of products' vectors, prices and ages over time
"""
