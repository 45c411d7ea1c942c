"""How an encoder learns: one file per objective, and the loop that they share.

recipe.py       objectives, batch, rates: one frozen object
initial_model.py  the small model or any checkpoint, ready to be trained
images.py  the catalogue's pictures decoded once
pairs.py        titles and pictures as arrays; the order, crops and masks of every step
towers.py       two towers of any family, seen as one
contrastive.py  each picture finds its title in the batch
bag_of_words_loss.py  the image names its title's words
momentum.py     a slow copy of the towers: a queue to compare with, softer answers
cross_attention.py  a text read beside a picture
matching.py     does this title belong to this picture?
language.py     the title written from the picture
spelling.py     tokens to a line of text
clicks.py       products that one user clicked in one session
alignment.py    those are to lie close
training_model.py  towers, heads, and the sum of their losses
filtering.py    pairs that teach the wrong thing
step.py         one step, what it changes and what it follows from
loop.py         step after step
process_group.py  several processes that train together
training_state.py  an interrupted training taken up again
"""
