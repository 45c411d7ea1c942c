"""How good the written captions are.

report.py   beside the sellers' own titles, and by whether what they name is so
"""
