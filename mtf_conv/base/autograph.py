"""Pipelines of tf.data without AutoGraph, which takes half of a short run.

tf.data turns each function that it is given, and all that these call, from
Python that branches on tensors into TensorFlow's own control flow. SeqIO's and
T5's functions need that nowhere in the tasks of this package.
"""

import tensorflow as tf


def avoid(build, *args, **kwargs):
  """Builds without AutoGraph what can be built without it.

  Args:
    build: a function that makes a tf.data pipeline.
    *args: of the function.
    **kwargs: of the function.

  Returns:
    What the function returns. Where it has Python branch on a tensor,
    TensorFlow refuses, and it is called again with AutoGraph.
  """
  try:
    return tf.autograph.experimental.do_not_convert(build)(*args, **kwargs)
  except (tf.errors.OperatorNotAllowedInGraphError, TypeError):
    return build(*args, **kwargs)
