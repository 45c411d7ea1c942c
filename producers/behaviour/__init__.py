"""What the log of impressions says of users and of products: `user_interest`, `product_neighbours`.

log.py               the log as codes and times
product_versions.py  what was known of products when they were shown
interests.py         clicks to `user_interest`
interest_rows.py     its rows, and back
neighbours.py        the log to `product_neighbours`
nearest.py           the nearest products with a history, kept up to date
product_changes.py   what changes of products over time
"""
