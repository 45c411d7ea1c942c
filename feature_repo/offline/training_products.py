"""Table `encoder_training`: the products that each encoder was trained on.

Vectors of other products may be worse, so that figures measured on these flatter.
"""

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_TRAINING, PRODUCT_ID, TIMESTAMP


def record(settings: Settings, encoder_version: str, products: pa.ChunkedArray | None, now: datetime) -> None:
    """Add the products that an encoder was trained on, unless the table has some of it.

    Args:
        settings: the deployment.
        encoder_version: the encoder.
        products: the products, each once; None, if they are not known, adds nothing.
        now: the created timestamp, with a time zone.
    """
    if products is None or read(settings, encoder_version) is not None:
        return
    rows = {
        "encoder_version": pa.repeat(pa.scalar(encoder_version), len(products)),
        PRODUCT_ID: products,
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(products)),
    }
    delta.append(settings.table(schema.ENCODER_TRAINING_TABLE), pa.table(rows).cast(ENCODER_TRAINING))


def read(settings: Settings, encoder_version: str | None) -> pa.ChunkedArray | None:
    """Return the products that an encoder was trained on, in no order; None if that is not known.

    It is not known of encoders that `produce encoder` did not train, or did with version 0.2 or earlier.

    Args:
        settings: the deployment.
        encoder_version: the encoder; None, if it is not known either, gives None.
    """
    path = settings.table(schema.ENCODER_TRAINING_TABLE)
    if encoder_version is None or not delta.exists(path):
        return None
    products = delta.read(path, [PRODUCT_ID], where=pc.field("encoder_version") == encoder_version)[PRODUCT_ID]
    return products if len(products) else None
