"""An encoder learnt from a shop, judged, and exported.

encoder.py      trained on a catalogue
clicks.py       the clicks that it may be aligned with
evaluation.py   designs held out, and recall on them
word_oracle.py  how far words alone could bring that recall
export.py       for other runtimes: ONNX, Triton
"""
