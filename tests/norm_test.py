"""The norm against T5's, and against sums written out in NumPy."""

import types

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import stock_t5
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import norm


def arrays(shape, seed=0, scale=1.0):
  rng = np.random.RandomState(seed)
  names = ('batch', 'length', 'd_model')[-len(shape):]
  dims = [mtf.Dimension(*d) for d in zip(names, shape)]
  x = scale * rng.randn(*shape)
  x[0] *= 1e-3  # Epsilon counts.
  return [(x.astype('float32'), dims),
          (rng.randn(shape[-1]).astype('float32'), dims[-1:])]


def plain(x, scale, epsilon):
  """y and the gradients of its weighted sum, in float64."""
  x, scale = x.astype('float64'), scale.astype('float64')
  dy = harness.output_weights(x.shape)
  r = (np.square(x).mean(-1, keepdims=True) + epsilon)**-0.5
  rows = tuple(range(x.ndim - 1))
  return (x * r * scale,
          r * (dy * scale - x * r**2 * (dy * x * scale).mean(
              -1, keepdims=True)), (r * x * dy).sum(rows))


def compare(inputs, mesh_shape='', layout='', dtype=tf.float32, epsilon=1e-6,
            **tolerance):
  y, gradients, lowering = harness.run_op(
      lambda x, scale: norm.RmsNormOperation(
          mtf.cast(x, dtype), mtf.cast(scale, dtype), epsilon).outputs[0],
      inputs, mesh_shape, layout)
  for found, expected in zip((y, *gradients), plain(
      *(array for array, _ in inputs), epsilon)):
    np.testing.assert_allclose(found, expected, **(
        tolerance or {'rtol': 1e-4, 'atol': 1e-4}))
  return lowering


@pytest.mark.parametrize('mesh_shape, layout', [
    ('', ''), ('batch:2', 'batch:batch'), ('model:4', 'd_model:model'),
    ('batch:2;model:2', 'batch:batch,d_model:model'),
    ('batch:2;model:2', 'batch:batch,length:model')])
def test_every_split(mesh_shape, layout):
  compare(arrays((4, 6, 8)), mesh_shape, layout)


@pytest.mark.parametrize('seed', range(4))
def test_random_shapes(seed):
  rng = np.random.RandomState(seed)
  shape = [int(size) for size in rng.randint(1, 9, rng.randint(1, 4))]
  compare(arrays(shape, seed),
          epsilon=10.0**-rng.randint(1, 7), rtol=1e-3, atol=1e-3)


def test_bfloat16():
  compare(arrays((4, 6, 8)), dtype=tf.bfloat16, epsilon=0.1, atol=0.1)


def of_model(stock):
  """The sublayer in a model and its gradients, its variables, whether own."""
  (array, dims), (scale, _) = arrays((3, 5, 8))
  model = transformer.Unitransformer(
      transformer.LayerStack([]), d_model=8, input_vocab_size=128,
      output_vocab_size=128, autoregressive=True, max_length=5,
      positional_embedding=False)
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    x = mtf.import_tf_tensor(mesh, tf.constant(array), mtf.Shape(dims))
    y = norm.rms_norm(x, None, types.SimpleNamespace(
        model=model, mesh=mesh, variable_dtype=mtf.VariableDType(tf.float32)),
                      stock=stock)
    variable, = graph.trainable_variables
    dy = mtf.import_tf_tensor(
        mesh, tf.constant(harness.output_weights(array.shape)), y.shape)
    tensors = [y, *mtf.gradients([y], [x, variable.outputs[0]], [dy])]
    lowering = harness.lower(graph, mesh, '')
    fetched = [lowering.export_to_tf_tensor(t) for t in tensors]
    with harness.session(1) as sess:
      master, = tf.global_variables()
      master.load(scale, sess)
      sess.run(lowering.copy_masters_to_slices())
      found = sess.run(fetched)
  return found, (variable.name, variable.shape), any(
      isinstance(op, norm.RmsNormOperation) for op in graph.operations)


def test_agrees_with_t5():
  found, variable, own = of_model(None)
  expected, stock_variable, stock = of_model(True)
  assert own and not stock and variable == stock_variable
  for a, b in zip(found, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_scale_is_of_the_last_dimension():
  (x, dims), _ = arrays((2, 3, 4))
  with tf.Graph().as_default():
    mesh = mtf.Mesh(mtf.Graph(), 'mesh')
    with pytest.raises(ValueError, match='must have the last dimension of x'):
      norm.RmsNormOperation(
          mtf.zeros(mesh, mtf.Shape(dims)),
          mtf.zeros(mesh, mtf.Shape(dims[:1])), 1e-6)


@pytest.mark.parametrize('mesh_shape', [
    '', pytest.param('batch:2;model:2', marks=pytest.mark.slow)])
def test_training_agrees_with_t5(mesh_shape):
  operations = stock_t5.check_agrees(
      'models/lightconv.tiny.gin', ['d_model = 128'], mesh_shape=mesh_shape)
  assert {'RmsNormOperation', 'RmsNormGradOperation',
          'ChunkedCrossEntropy'} <= operations
