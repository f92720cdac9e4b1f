"""Data: raw files to TFDS's folders, its lengths, the speed of reading it."""
