"""consistency.

check.py  whether what is online is what the offline store says
row_checks.py  what is wrong with each of them
sampling.py  which keys are compared: a sample by hash
served_log.py  a sample of what was served, byte for byte
"""
