"""Pages of `consume serve` for people: search, a product, saved searches, and the judging of pairs.

    application.py   all pages together: routes, templates, limits
    shop.py          what the pages show of a deployment: index, towers, products, groups
    groups.py        which products are in one group, and the journal
    cards.py         a product as a card of a page
    pictures.py      small copies of the products' pictures
    search_query.py  a search as fields of a form and of a URL
    search_page.py   the routes of a search
    saved_page.py    the routes of saved searches
    product_page.py  the route of a product
    labels_page.py   the routes of judging pairs

The frame of the pages, sessions and assets are in feature_repo/web, and what answers page requests in
feature_repo/server/page_service.py. All work is done by the service's page workers, so that it does not take the places
of the rankers' requests.
"""
