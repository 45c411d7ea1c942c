"""`produce studio`: caption lines and generated pictures for merchants, over HTTP and as pages.

    run.py              opens models and store, and serves until the shutdown
    application.py      routes, pages and limits together
    metrics.py          Prometheus metrics

    caption_request.py  a request for lines, from JSON or a form
    caption_service.py  answers requests: bounded, decoded in threads, written in batches
    caption_writer.py   tags pictures where the store does not, and ranks lines
    picture_tagger.py   what a picture shows that is no product of the store
    products.py         what the store knows of a product
    caption_routes.py   POST /v1/captions
    caption_page.py     the page on which merchants edit lines

    picture_request.py  a request for pictures of a sentence
    picture_queue.py    jobs that wait, the one in work, and those that have ended
    picture_store.py    jobs and pictures as files
    picture_model.py    what the queue asks of a text-to-image model
    stable_diffusion.py a text-to-image checkpoint
    picture_routes.py   /v1/pictures
    picture_page.py     the page on which pictures are generated

A service of its own beside `consume serve`, because it holds models. Connections, access and page sessions are those
of every server (feature_repo/server). Edits are kept by producers/captions/edit_log.py.
"""
