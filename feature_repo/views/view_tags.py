"""Tags and descriptions that several views share. Feast's registry and the feature cards show them."""

from feature_repo import schema

PRODUCERS = {
    schema.CATALOGUE_TABLE: "produce catalogue",
    schema.EMBEDDING_TABLE: "produce embeddings",
    schema.TAGS_TABLE: "produce tags",
    schema.CODES_TABLE: "produce codes",
    schema.NEIGHBOURS_TABLE: "produce neighbours",
    schema.INTEREST_TABLE: "produce interests",
    schema.GROUP_TABLE: "produce groups",
    schema.CAPTION_TABLE: "produce captions",
}
"""The command that writes each view's table, in the order in which the views are computed."""

PRODUCER, COMPARABLE_WITHIN = "producer", "comparable_within"
"""Tags of a view: the command that writes its table; the feature by which its values may be compared."""
ENCODER_VERSION = "version of the encoder that the row is computed from"
"""Description of the feature `encoder_version`."""


def make_view_tags(table: str, *, comparable_within: str | None = None) -> dict[str, str]:
    """Return the tags of a view.

    Args:
        table: name of its table, one of PRODUCERS.
        comparable_within: feature with a model version: values of rows with different versions must not be compared.
            None: all may be.
    """
    return {PRODUCER: PRODUCERS[table]} | ({COMPARABLE_WITHIN: comparable_within} if comparable_within else {})
