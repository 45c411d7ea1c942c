"""Feature cards: one page for each feature view, with what it means, costs, covers, and is worth.

card.py        what a card says
collect.py     the cards of a deployment, from Feast's registry, the tables and the checks
table.py       size, model versions and missing values of a view's table
lift_file.py   the lift of a view's groups, from the JSON of `consume lift`
pages.py       the cards as HTML pages
"""
