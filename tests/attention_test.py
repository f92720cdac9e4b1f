"""Attention against T5's, and against sums written out in NumPy."""

import types

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import stock_t5
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import attention as stock_attention

from mtf_conv import attention

SIZES = {'batch': 4, 'length': 6, 'heads': 2, 'memory_length': 8, 'd_kv': 3,
         'value': 5, 'beam': 3}
Q, K, V = (['batch', 'length', 'heads', 'd_kv'],
           ['batch', 'memory_length', 'heads', 'd_kv'],
           ['batch', 'memory_length', 'heads', 'value'])


def dims(names):
  return [mtf.Dimension(name, SIZES[name]) for name in names]


def arrays(*shapes, seed=0):
  rng = np.random.RandomState(seed)
  return [(rng.randn(*(SIZES[name] for name in names)).astype('float32'),
           dims(names)) for names in shapes]


def run(inputs, mesh_shape='', layout='', dtype=tf.float32, stock=False):
  """Returns y and the gradients of all inputs."""
  memory, key, value = dims(['memory_length', 'd_kv', 'value'])
  context = types.SimpleNamespace(
      train=False, model=types.SimpleNamespace(layout=None, mesh_shape=None))

  def fn(q, k, v, *others):
    q, k, v, *others = (mtf.cast(t, dtype) for t in (q, k, v, *others))
    return attention.attention(
        q, k, v, memory, key, value, others[0] if others else None,
        dropout_broadcast_dims=[], context=context, stock=stock)

  return harness.run_op(fn, inputs, mesh_shape, layout)


def compare(inputs, mesh_shape='', layout='', dtype=tf.float32, atol=2e-5):
  y, gradients, lowering = run(inputs, mesh_shape, layout, dtype)
  expected, expected_gradients, _ = run(inputs, stock=True)
  for a, b in zip([y, *gradients], [expected, *expected_gradients]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)
  assert any(isinstance(op, attention.AttentionOperation)
             for op in lowering.graph.operations)
  return lowering


@pytest.mark.parametrize('mesh_shape, layout', [
    ('', ''), ('batch:2', 'batch:batch'), ('model:2', 'heads:model'),
    ('batch:2;model:2', 'batch:batch,heads:model'),
    ('batch:2;model:2', 'batch:batch,length:model')])
@pytest.mark.parametrize('bias', [
    None, ['heads', 'length', 'memory_length'], ['batch', 'memory_length'],
    ['memory_length', 'batch', 'length'], ['length', 'memory_length']])
def test_every_split_and_bias(bias, mesh_shape, layout):
  compare(arrays(Q, K, V, *([bias] if bias else [])), mesh_shape, layout)


@pytest.mark.parametrize('q, k, v', [
    (['batch', 'heads', 'd_kv'], K, V),
    (['batch', 'beam', 'heads', 'd_kv'], K, V),
    (['batch', 'beam', 'heads', 'd_kv'],
     ['batch', 'beam', *K[1:]], ['batch', 'beam', *V[1:]]),
    (['heads', 'd_kv', 'length', 'batch'], K[::-1], V[::-1])])
def test_a_step_and_beams(q, k, v):
  compare(arrays(q, k, v, ['memory_length']))


def test_values_and_gradients_are_those_of_the_formulas():
  inputs = arrays(Q, K, V)
  q, k, v = (a.astype('float64') for a, _ in inputs)
  logits = np.einsum('blhk,bmhk->blhm', q, k)
  w = np.exp(logits - logits.max(-1, keepdims=True))
  w /= w.sum(-1, keepdims=True)
  y = np.einsum('blhm,bmhv->blhv', w, v)
  dy = harness.output_weights(y.shape)
  dw = np.einsum('blhv,bmhv->blhm', dy, v)
  ds = w * (dw - (dw * w).sum(-1, keepdims=True))
  found, gradients, _ = run(inputs)
  for a, b in zip([found, *gradients], [
      y, np.einsum('blhm,bmhk->blhk', ds, k),
      np.einsum('blhm,blhk->bmhk', ds, q),
      np.einsum('blhm,blhv->bmhv', w, dy)]):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_bfloat16():
  compare(arrays(Q, K, V, ['length', 'memory_length']), dtype=tf.bfloat16,
          atol=0.15)


def test_dropout_is_of_weights():
  inputs = arrays(Q, K, V, Q[:3] + ['memory_length'])
  mask = (inputs[3][0] > 0).astype('int32')
  memory, key, value = dims(['memory_length', 'd_kv', 'value'])

  def fn(q, k, v, mask):
    return attention.AttentionOperation(
        q, k, v, None, mtf.to_float(mask) / 0.5, memory, key,
        value).outputs[0]

  def stock(q, k, v, mask):
    w = mtf.softmax(mtf.einsum([q, k], reduced_dims=[key]), memory)
    return mtf.einsum([w * mtf.to_float(mask) / 0.5, v],
                      q.shape - key + value)

  inputs = [*inputs[:3], (mask, inputs[3][1])]
  y, gradients, _ = harness.run_op(fn, inputs)
  expected, expected_gradients, _ = harness.run_op(stock, inputs)
  for a, b in zip([y, *gradients], [expected, *expected_gradients]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_a_layout_that_splits_keys_is_t5_s():
  inputs = arrays(Q, K, V, ['memory_length'])
  with pytest.raises(ValueError, match='the layout splits .*d_kv.*stock'):
    run(inputs, 'model:3', 'd_kv:model')
  with tf.Graph().as_default():
    mesh = mtf.Mesh(mtf.Graph(), 'mesh')
    tensors = [mtf.import_tf_tensor(mesh, tf.constant(a), mtf.Shape(d))
               for a, d in inputs]
    y = attention.attention(
        *tensors[:3], *dims(['memory_length', 'd_kv', 'value']), tensors[3],
        dropout_broadcast_dims=[], context=types.SimpleNamespace(
            train=False, model=types.SimpleNamespace(
                layout=mtf.convert_to_layout_rules('memory_length:model'),
                mesh_shape=mtf.convert_to_shape('model:2'))))
    assert not any(isinstance(op, attention.AttentionOperation)
                   for op in y.mesh.graph.operations)


def test_t5_has_one_attention_function():
  layer = attention.SelfAttention(num_heads=2, key_value_size=4)
  assert layer.attention_fn is attention.attention
  hybrid = attention.SelfAttention(
      num_heads=2, key_value_size=4, attention_func='hybrid')
  assert hybrid.attention_fn is stock_attention.hybrid_attention


@pytest.mark.parametrize('model', [
    'transformer', pytest.param('dynamicconv', marks=pytest.mark.slow)])
def test_training_agrees_with_t5(model):
  operations = stock_t5.check_agrees(f'models/{model}.tiny.gin')
  assert {'AttentionOperation', 'AttentionGradOperation'} <= operations


@pytest.mark.parametrize('options', [{}, {'beam_size': 3}])
def test_decodes_as_t5(options):
  path = 'models/transformer.tiny.gin'
  np.testing.assert_array_equal(
      stock_t5.decode(path, **options),
      stock_t5.decode(path, stock_t5.STOCK, **options))
