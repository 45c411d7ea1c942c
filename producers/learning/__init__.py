"""An encoder learnt from a shop, judged, and exported.

encoder.py      trained on a catalogue
evaluation.py   designs held out, and recall on them
export.py       for other runtimes: ONNX, Triton
"""
