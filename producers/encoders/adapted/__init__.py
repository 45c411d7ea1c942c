"""Encoders whose vectors are mapped into the space of another encoder, for products that both have encoded.

vector_map.py  maps between two spaces: orthogonal, ridge, low rank, a small network
encoder.py     an encoder with a map behind it, and its directory
"""
