"""Storage tags of features, which the online store reads (feature_repo/arrow/field.py)."""

HALF = {"storage": "float16"}
"""Vectors in half the bytes, for similarity search: 99.96% of the ten nearest neighbours stay the same
(tests/benchmarks/PRECISION.md). The cosine of two of them changes by up to about 1e-4."""
AGES = {"length": "child_age_stages"}
"""Lists with one number for each child age stage. Their length is that of the deployment's scale, whatever
`vector_length` says (feature_repo/age_scale.py)."""
ADDED = {"missing": "null"}
"""Features that a later version of Vitrine added. They are null while the table has no such column, as before the next
run of the step that writes it."""
FEW = {"storage": "dictionary"}
"""Texts with few distinct values, as dictionary codes. Not for brands: a marketplace may have more than a dictionary
holds."""
