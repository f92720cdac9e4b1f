"""SeqIO tasks; importing this registers all of them and reads nothing."""

from mtf_conv.tasks import (  # noqa: F401
    classification,
    cogs,
    demo,
    question_answering,
    span_corruption,
)
