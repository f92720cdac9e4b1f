"""The loss against T5's, and against sums written out in NumPy."""

import types

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import stock_t5
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import loss

MESHES = [
    ('', ''),
    ('batch:2', 'batch:batch'),
    ('model:4', 'vocab:model'),
    ('batch:2;model:2', 'batch:batch,vocab:model'),
    ('batch:2;model:2', 'length:batch,vocab:model'),
    ('batch:2;model:2', 'batch:batch,length:model'),
]
LOSSES = [(0.0, 0.0), (0.0, 1e-4), (0.1, 0.0), (0.1, 1e-2)]


def dims(shape):
  return [mtf.Dimension(name, size) for name, size in shape.items()]


def arrays(rows, vocabulary, seed=0, scale=3.0, first=0):
  """Logits and targets; as many targets are too great as are less than 0."""
  rng = np.random.RandomState(seed)
  rows_dims, (vocab_dim,) = dims(rows), dims({'vocab': vocabulary})
  shape = [*rows.values()]
  logits = scale * rng.randn(*shape, vocabulary) + 5
  targets = rng.randint(first, vocabulary - first, shape)
  return [(logits.astype('float32'), [*rows_dims, vocab_dim]),
          (targets.astype('int32'), rows_dims)]


def plain(logits, targets, smoothing, z_loss):
  """Losses and the gradients of their weighted sum, in float64."""
  logits = logits.astype('float64')
  vocabulary = logits.shape[-1]
  q = (1 - smoothing) * (targets[..., None] == np.arange(vocabulary))
  q = q + smoothing / vocabulary
  maxima = logits.max(-1, keepdims=True)
  log_z = maxima + np.log(np.exp(logits - maxima).sum(-1, keepdims=True))
  losses = (q * (log_z - logits)).sum(-1) + z_loss * log_z[..., 0]**2
  dlosses = harness.output_weights(losses.shape)[..., None]
  p = np.exp(logits - log_z)
  return losses, dlosses * (
      (q.sum(-1, keepdims=True) + 2 * z_loss * log_z) * p - q)


def compare(inputs, smoothing=0.0, z_loss=0.0, mesh_shape='', layout='',
            dtype=tf.float32, **tolerance):
  """Compares values and gradients with the plain ones."""
  vocab_dim = inputs[0][1][-1]
  found, (dlogits,), lowering = harness.run_op(
      lambda x, t: loss.softmax_cross_entropy(
          mtf.cast(x, dtype), t, vocab_dim, smoothing, z_loss),
      inputs, mesh_shape, layout)
  expected, expected_dlogits = plain(
      *(array for array, _ in inputs), smoothing, z_loss)
  tolerance = tolerance or {'rtol': 1e-5, 'atol': 1e-5}
  np.testing.assert_allclose(found, expected, **tolerance)
  np.testing.assert_allclose(dlogits, expected_dlogits, **tolerance)
  return lowering


@pytest.mark.parametrize('mesh_shape, layout', MESHES)
@pytest.mark.parametrize('smoothing, z_loss', LOSSES)
def test_every_split(mesh_shape, layout, smoothing, z_loss):
  compare(arrays({'batch': 4, 'length': 6}, 24, first=-3), smoothing, z_loss,
          mesh_shape, layout)


@pytest.mark.parametrize('seed', range(6))
def test_random_shapes(seed):
  rng = np.random.RandomState(seed)
  rows = {name: rng.randint(1, 9)
          for name in ['ensemble', 'batch', 'length'][:rng.randint(1, 4)]}
  compare(arrays(rows, rng.randint(1, 300), seed), *LOSSES[seed % 4])


@pytest.mark.parametrize('mesh_shape', ['', 'model:4'])
@pytest.mark.parametrize('scale', [1e-3, 300.0])
def test_small_and_large_logits(scale, mesh_shape):
  compare(arrays({'batch': 8}, 48, scale=scale), 0.0, 0.0, mesh_shape,
          'vocab:model', rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('smoothing, z_loss', LOSSES)
@pytest.mark.parametrize('first', [0, -3])
def test_agrees_with_t5(smoothing, z_loss, first):
  inputs = arrays({'batch': 3, 'length': 5}, 40, first=first)
  vocab_dim = inputs[0][1][-1]

  def stock(logits, targets):
    off_value = smoothing / vocab_dim.size
    return mtf.layers.softmax_cross_entropy_with_logits(
        logits, mtf.one_hot(
            targets, vocab_dim, on_value=1 - smoothing + off_value,
            off_value=off_value), vocab_dim, z_loss)

  found, grads, _ = harness.run_op(
      lambda x, t: loss.softmax_cross_entropy(
          x, t, vocab_dim, smoothing, z_loss), inputs)
  expected, expected_grads, _ = harness.run_op(stock, inputs)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(grads[0], expected_grads[0], atol=1e-5)


@pytest.mark.parametrize('mesh_shape, layout', [
    ('', ''), ('model:2', 'vocab:model')])
def test_bfloat16(mesh_shape, layout):
  compare(arrays({'batch': 4, 'length': 6}, 24), 0.1, 1e-2, mesh_shape, layout,
          tf.bfloat16, atol=5e-2)


def test_no_tensor_of_targets():
  inputs = arrays({'batch': 4, 'length': 6}, 24)
  lowering = compare(inputs, 0.1, 1e-2)
  large = [op for op in lowering.graph.operations
           if any(t.shape.size >= 4 * 6 * 24 for t in op.outputs)]
  # That of run_op, its cast, exp(x - max x) and the gradient, cast again.
  assert not any(isinstance(op, mtf.ops.OneHotOperation) for op in large)
  assert len([op for op in large if 'cross_entropy' in op.name]) == 2


def test_counts_what_is_reduced():
  counted = harness.counters(compare(
      arrays({'batch': 4, 'length': 6}, 24), mesh_shape='batch:2;model:2',
      layout='batch:batch,vocab:model'))
  # A maximum and three sums of each target, on two parts of the vocabulary.
  assert counted['allreduce/[1]/cross_entropy'] == 2 * 4 * 4 * 6


def test_wrong_arguments():
  batch, length, vocab = dims({'batch': 2, 'length': 3, 'vocab': 4})
  with tf.Graph().as_default():
    mesh = mtf.Mesh(mtf.Graph(), 'mesh')
    logits = mtf.zeros(mesh, mtf.Shape([batch, length, vocab]))
    targets = mtf.zeros(mesh, mtf.Shape([batch, length]), tf.int32)
    for args, message in (
        ((logits, mtf.zeros(mesh, mtf.Shape([batch]), tf.int32), vocab),
         'must have the dimensions of targets'),
        ((logits, targets, length), 'must have the dimensions of targets'),
        ((logits, mtf.to_float(targets), vocab), 'must be integers')):
      with pytest.raises(ValueError, match=message):
        loss.softmax_cross_entropy(*args)


# The loss of a model.


def of_model(loss_fn, train=True, dtype=tf.float32, **options):
  """The loss of a model of nothing but logits, and their gradient."""
  batch, length, vocab = dims({'batch': 3, 'length': 5, 'vocab': 128})
  model = transformer.Unitransformer(
      transformer.LayerStack([]), d_model=4, input_vocab_size=128,
      output_vocab_size=128, autoregressive=True, max_length=5,
      positional_embedding=False, loss_fn=loss_fn, **options)
  context = types.SimpleNamespace(
      train=train, num_microbatches=2, activation_dtype=dtype)
  (logits, logits_dims), (targets, targets_dims) = arrays(
      {'batch': 3, 'length': 5}, 128, first=0)
  targets[0, 3:], targets[1, 1] = 0, 1  # Padding, and an end within a row.

  def value(logits, targets):
    return mtf.cast(model._compute_loss(
        context, mtf.cast(logits, dtype), targets, vocab), tf.float32)

  found, grads, lowering = harness.run_op(
      value, [(logits, logits_dims), (targets, targets_dims)])
  names = {type(op).__name__ for op in lowering.graph.operations}
  return found, grads[0], 'CrossEntropyOperation' in names


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('options', [
    {}, {'label_smoothing': 0.1, 'z_loss': 1e-2}, {'loss_denominator': 7.0},
    {'loss_on_targets_only': True}])
def test_options_of_t5(train, options):
  found, dlogits, own = of_model(loss.cross_entropy, train, **options)
  expected, expected_dlogits, stock = of_model(None, train, **options)
  assert own and not stock
  assert found > 0.1
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(dlogits, expected_dlogits, atol=1e-5)


def test_a_model_in_bfloat16_is_near_that_in_float32():
  exact, _, _ = of_model(None)
  found, _, _ = of_model(loss.cross_entropy, dtype=tf.bfloat16)
  assert abs(found - exact) < 1e-2 * exact


def test_xla_keeps_t5_s():
  found = []

  def build():
    found.append(of_graph())
    return tf.zeros([])

  def of_graph():
    batch, vocab = dims({'batch': 3, 'vocab': 128})
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    model = transformer.Unitransformer(
        transformer.LayerStack([]), d_model=4, input_vocab_size=128,
        output_vocab_size=128, autoregressive=True, max_length=5,
        positional_embedding=False, loss_fn=loss.cross_entropy)
    model._compute_loss(
        types.SimpleNamespace(
            train=True, num_microbatches=1, activation_dtype=tf.float32),
        mtf.zeros(mesh, mtf.Shape([batch, vocab])),
        mtf.zeros(mesh, mtf.Shape([batch]), tf.int32), vocab)
    return {type(op) for op in graph.operations}

  with tf.Graph().as_default():
    tf.xla.experimental.compile(build)
    assert mtf.ops.OneHotOperation in found[0]
    assert loss.CrossEntropyOperation not in found[0]
    assert mtf.ops.OneHotOperation not in of_graph()


# Whole models.


# With the embedding, whose tests are in embedding_test.
@pytest.mark.parametrize('model, bindings, mesh_shape', [
    pytest.param(
        'transformer', ['transformer.Unitransformer.label_smoothing = 0.1'],
        'batch:2;model:2', marks=pytest.mark.slow),
    ('lightconv', [], '')])
def test_training_agrees_with_t5(model, bindings, mesh_shape):
  operations = stock_t5.check_agrees(
      f'models/{model}.tiny.gin', bindings, mesh_shape=mesh_shape)
  assert {'LookupOperation', 'LookupGradOperation',
          'ChunkedCrossEntropy'} <= operations
