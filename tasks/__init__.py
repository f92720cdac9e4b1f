"""SeqIO tasks; importing this registers all of them and reads nothing."""

from mtf_conv.tasks import classification, span_corruption  # noqa: F401
