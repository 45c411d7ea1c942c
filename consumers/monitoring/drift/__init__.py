"""Whether what comes in now looks like what came in before.

windows.py  the products of now and of before, side by side
measures.py    statistics of how far two sets of products are apart, for many labellings at once
domain_classifier.py  how well a classifier tells the two sets apart
neighbour_turnover.py  how many of a product's neighbours a new version of it lost
threshold.py   how far apart they would be by chance: labels permuted within strata, the largest statistic of all
measured.py    what is found in each view: statistics, a changed version, what cannot be judged
check.py       all of it, and what to do first
"""
