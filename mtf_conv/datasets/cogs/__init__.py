"""COGS; importing this registers its builder with TFDS."""

from mtf_conv.datasets.cogs import cogs_dataset_builder  # noqa: F401
