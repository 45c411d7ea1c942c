"""Reads features: training sets and their lift, search, tag and group quality, encoder gates, monitoring, serving.

    cli.py       the command line; commands/ has one file per subcommand
    online/      the online reader for ranking services
    serving/     feature server over Arrow Flight and HTTP
    pages/       pages of the feature server: search, a product, saved searches, judging pairs
    ranking/     training set, rankers, metrics, lift
    search/      products for a sentence
    pairs/       whether two products are the same, answered while the caller waits
    tagging/     quality of the predicted tags
    captions/    quality of the written captions
    cards/       one page for each feature view: meaning, cost, coverage, freshness, drift, lift
    labels/      samples of product pairs for people to judge, and precision and recall from their answers
    report_json.py  reports as JSON
    gate/        whether the candidate of an encoder upgrade may go into production
    monitoring/  freshness, consistency and drift checks; metrics and the status page
    block.py     deprecated alias of online.FeatureBatch
    affinity.py  deprecated alias of online/affinity.py

Imports `feature_repo`, never `producers`.
"""
