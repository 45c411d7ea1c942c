"""Pictures from sentences by latent diffusion: models of the classes of Stable Diffusion.

checkpoint.py      open and save a folder in the form of diffusers; hashes of the parts that training leaves as they are
sentences.py       tokenize sentences, cut those that are too long, and compute their text states
generate.py        pictures from sentences: one seed for each picture, progress, cancellation
picture_folder.py  a folder of generated pictures with metadata.jsonl; files of sentences
initial_model.py   a small model of the same classes with random weights
judging/           whether generated pictures show what their sentences ask for
"""
