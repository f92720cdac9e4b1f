"""A step of training of a whole model, checked against a plain one."""

import tensorflow.compat.v1 as tf

from mtf_conv import training
from mtf_conv.base import errors
from mtf_conv.measure import graph, models, reference
from mtf_conv.measure.speed import plain


def training_step(path, batch, inputs, targets, vocabulary, size, say=print,
                  check=True, stock=False):
  """Builds and checks a model.

  Args:
    path: its gin file.
    batch: rows in a batch.
    inputs: the length of inputs.
    targets: the length of targets.
    vocabulary: how many ids there are.
    size: gin bindings that come after the file.
    say: is told what is built.
    check: whether to compare it with the model of plain convolutions.
    stock: whether embedding, loss, norms and optimizer are T5's own.

  Returns:
    A function without arguments that trains the model for one step.

  Raises:
    errors.UserError: the loss or a gradient differs, or there is no row.
  """
  if batch < 1:
    raise errors.UserError(
        f'a batch must have tokens for at least one input of length {inputs}')
  name = f'{models.kind(path)} N={inputs}'
  say(name)
  shape = (batch, inputs, targets, vocabulary)
  with graph.Builder() as builder:
    sess, updates, fetched = build(builder, path, shape, size, stock)
    # The Transformer has no convolution that could be wrong.
    if check and models.kind(path) != 'transformer':
      weights, found = sess.run(
          [{v.op.name: v for v in tf.global_variables()}, fetched])
      # What rounding takes to the other side of a ReLU's 0 changes single
      # entries of a gradient of wi: of the plain model between float32 and
      # float64 by 5e-3, of the fast one by up to 1e-2. The block has no ReLU
      # and is compared more closely, in block.py.
      reference.check(name, found, _plain(shape, weights), tolerance=5e-2)
  return graph.timed(sess, updates)


def build(builder, path, shape, size=(), stock=False):
  """Builds a step of training.

  Args:
    builder: a graph.Builder, entered.
    path: the model's gin file.
    shape: (rows in a batch, length of inputs, of targets, ids).
    size: gin bindings that come after the file.
    stock: whether embedding, loss, norms and optimizer are T5's own.

  Returns:
    (a session; the tf.Operations of the step; the loss and the gradients,
    tf.Tensors)
  """
  models.parse([path], [*size, *(models.AS_ON_TPU if stock else ())])
  if not stock:
    training.read_once(tf.get_variable_scope())
  loss, gradients = models.training(builder, *shape)
  updates = models.optimize(builder, gradients)
  lowering = builder.lower()
  fetched = [lowering.export_to_tf_tensor(t) for t in (loss, *gradients)]
  return (builder.session(lowering),
          [lowering.lowered_operation(op) for op in updates], fetched)


def _plain(shape, weights):
  """Loss and gradients of the model that was parsed, without a fast path."""
  plain.bind()
  with graph.Builder() as builder:
    loss, gradients = models.training(builder, *shape)
    lowering = builder.lower()
    fetched = [lowering.export_to_tf_tensor(t) for t in (loss, *gradients)]
    with builder.session(lowering, weights) as sess:
      return sess.run(fetched)
