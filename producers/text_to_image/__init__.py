"""Pictures from sentences by latent diffusion: models of the classes of Stable Diffusion.

checkpoint.py              open and save a folder in the form of diffusers; hashes of the parts that stay as they are
sentences.py               tokenize sentences, cut those that are too long, and compute their text states
generate.py                pictures from sentences: one seed for each picture, progress, cancellation
picture_folder.py          a folder of generated pictures with metadata.jsonl; files of sentences
initial_model.py           a small model of the same classes with random weights
shop_pairs.py              pictures of a generated shop with sentences that state their attributes
pairs.py                   pictures and sentences as the training reads them: latents and tokens
autoencoder.py             train the VAE of a small model
denoising.py               the denoising loss
training_loop.py           steps over accumulated micro-batches, which resume exactly
loop_state.py              the weights, their averages, the optimizer and the losses between two steps
text_pretraining.py        train the text encoder of a small model to tell pictures apart
picture_network.py         a small convolutional network on pictures, for that and for judging
pretrain.py                train a small model from random weights
train.py                   train the text encoder of a checkpoint by the denoising loss
swap.py                    replace the text encoder by that of another language
text_towers.py             the text tower of an encoder
projected_text_encoder.py  a text encoder and a projection to the width that a UNet attends to
match.py                   the loss by which a new text encoder learns to match the original one
match_training.py          a text encoder trained by that loss
judging/                   whether generated pictures show what their sentences ask for
"""
