"""Training of encoders: one module for each objective, and the training loop that they share.

recipe.py             objectives, batch size and rates, in one frozen object
initial_model.py      the model that training starts from: a new tiny CLIP or a checkpoint
images.py             the catalogue's images, decoded once
pairs.py              titles and images as arrays; the row order, crops and masks of each step
towers.py             an image tower and a text tower of any supported family behind one interface
contrastive.py        contrastive loss, alone or with a momentum copy of the towers
bag_of_words_loss.py  loss for predicting the words of a title from its image
cross_attention.py    decoder that attends from a text to the tokens of an image
matching.py           loss for deciding whether a title belongs to an image
language.py           language head that generates a title from an image, and the detokenizer
alignment.py          loss that pulls products clicked in one session together, and the click pairs
layer_depths.py       how deep each weight of a checkpoint lies, for learning rates by layer
training_model.py     towers, heads, and the loss of each objective
filtering.py          pairs that are left out of training
step.py               one optimizer step, and the inputs it depends on
loop.py               all steps of a training
time_budget.py        how many steps fit into the given time
validation.py         recall on designs that fine-tuning is not trained on
process_group.py      several processes that train together
training_state.py     the state of a training, and its file for resuming
"""
