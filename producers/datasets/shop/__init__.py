"""A generated mother-and-baby shop with known ground truth, to evaluate the whole chain on.

parameters.py      constants that decide how difficult the shop is
vocabulary.py      categories and attributes, and the words that sellers use for them, in Chinese and English
random_streams.py  an independent random generator for each part
assortment.py      designs, and the products that sellers make of them
offers.py          seller ids, stock, units sold, second images
shapes.py          polygons that everything is drawn with
clothes.py         silhouettes of clothes
non_clothing.py    silhouettes of toys, tableware, bags and care products
silhouettes.py     the outline of each category by age; children
decoration.py      colours, patterns, emblems, backgrounds
product_images.py  draws one product's image, and all images in several processes
titles.py          titles as sellers write them, with words that do not apply
people.py          users, their children and their tastes
impressions.py     which product each user is shown when
clicks.py          the click probability of each impression, and whether it was clicked
write.py           writes the shop's folder: tables, images, ground truth
"""
