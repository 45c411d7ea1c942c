"""A generated mother-and-baby shop whose truth is known, so that the chain can be judged.

parameters.py  the settings that decide how hard the shop is
vocabulary.py   what there is to sell, and the words sellers use for it, Chinese and English
random_streams.py  one stream of random numbers per part
assortment.py  designs, and the products that sellers make of them
shapes.py       polygons, of which everything is drawn
clothes.py      silhouettes of what is worn
non_clothing.py  silhouettes of what is not
silhouettes.py  the outline of each category, as it grows with the child; the child itself
decoration.py   colours, patterns, emblems, backgrounds
product_images.py  one product's picture; all of them, in several processes
titles.py       what sellers write, and what they stuff in
people.py       users, their children and their tastes
impressions.py  who was shown what, and when
clicks.py       how likely each impression was to be clicked, and whether it was
write.py        the folder: tables, pictures, truth
"""
