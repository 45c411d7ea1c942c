"""Quality of the written captions.

report.py  captions compared with the sellers' titles and with the true attributes
"""
