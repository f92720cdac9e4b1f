"""Whole tiny models, with T5's own vocabulary layers and with those of here."""

import contextlib

import gin
import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv import optimizer, training
from mtf_conv.measure import graph

# Bindings that come after a model file.
STOCK = (
    'transformer.get_vocab_embedding_cls.cls = @transformer.VocabEmbedding',
    'transformer.Unitransformer.loss_fn = None',
    'mtf_conv.attention.attention.stock = True',
    'mtf_conv.norm.rms_norm.stock = True',
    'mtf_conv.optimizer.Adafactor.stock = True')


@contextlib.contextmanager
def one_thread(devices=1):
  """A session whose sums have one order."""
  with tf.Session(config=tf.ConfigProto(
      device_count={'CPU': devices}, intra_op_parallelism_threads=1,
      inter_op_parallelism_threads=1,
      graph_options=graph.as_built())) as sess:
    yield sess


def train(path, bindings=(), steps=20, mesh_shape='', batch=4, length=12,
          variable_dtype=None):
  """Trains a tiny model of one block with Adafactor, from a fixed seed.

  Args:
    path: its gin file.
    bindings: what comes after it.
    steps: how many, each on a batch of its own.
    mesh_shape: such as 'batch:2;model:2'.
    batch: rows in a batch.
    length: of inputs and targets; some rows end with padding.
    variable_dtype: an mtf.VariableDType; None for float32.

  Returns:
    (the loss of every step, the weights after the last by name, all mtf
    operations' classes)
  """
  with harness.Model([path], [
      'dropout_rate = 0.0', 'num_layers = 1', *bindings], mesh_shape,
      variable_dtype=variable_dtype) as m:
    feeds, ids = {}, []
    rng = np.random.RandomState(0)
    for _ in range(2):
      placeholder = tf.placeholder(tf.int32, [batch, length])
      array = rng.randint(2, harness.VOCABULARY, [steps, batch, length])
      array[:, ::2, length - 3:] = 0
      feeds[placeholder] = array
      ids.append(mtf.import_tf_tensor(m.mesh, placeholder, mtf.Shape([
          mtf.Dimension('batch', batch), mtf.Dimension('length', length)])))
    # Else a late read may find what the step has written.
    training.read_once(tf.get_variable_scope())
    _, loss = m.bitransformer.call_simple(
        *ids, compute_loss=True, mode='train', variable_dtype=m.variable_dtype)
    variables = m.graph.trainable_variables
    gradients = mtf.gradients([loss], [v.outputs[0] for v in variables])
    updates = optimizer.Adafactor(
        learning_rate=1e-2).apply_grads(gradients, variables)
    operations = {type(op).__name__ for op in m.graph.operations}
    lowering = harness.lower(m.graph, m.mesh, mesh_shape)
    loss = tf.cast(lowering.export_to_tf_tensor(loss), tf.float32)
    with tf.control_dependencies([loss]):
      updates = [lowering.lowered_operation(op) for op in updates]
    masters = {v.op.name: v for v in tf.global_variables()}
    with one_thread(mtf.convert_to_shape(mesh_shape).size) as sess:
      trained = {v.name for v in variables}
      sess.run(tf.global_variables_initializer())
      for name, variable in masters.items():
        if name in trained:
          variable.load(harness.initial_weight(
              name, variable.shape.as_list()), sess)
      sess.run(lowering.copy_masters_to_slices())
      losses = [sess.run([loss, updates], {
          placeholder: array[step] for placeholder, array in feeds.items()})[0]
          for step in range(steps)]
      sess.run(lowering.copy_slices_to_masters())
      weights = sess.run({name: masters[name] for name in trained})
  return np.array(losses), weights, operations


def decode(path, bindings=(), **options):
  """Returns the ids that a tiny model decodes, with weights of a fixed seed."""
  source = np.random.RandomState(1).randint(2, harness.VOCABULARY, (3, 9))
  source[0, 6:] = 0
  with harness.Model([path], ['num_layers = 1', *bindings]) as m:
    decoded, = m.run([m.bitransformer.decode(
        m.ids(source), max_decode_length=8, **options)])
  return decoded


def check_agrees(path, bindings=(), **options):
  """Checks that a model trains as T5's path does; returns its operations."""
  losses, weights, operations = train(path, bindings, **options)
  stock_losses, stock_weights, _ = train(path, [*bindings, *STOCK], **options)
  assert losses[-1] < losses[0]
  np.testing.assert_allclose(losses, stock_losses, atol=1e-4)
  assert weights.keys() == stock_weights.keys()
  for name, weight in weights.items():
    np.testing.assert_allclose(
        weight, stock_weights[name], atol=1e-4, err_msg=name)
  gin.clear_config()
  return operations
