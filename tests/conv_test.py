"""The local convolution against plain NumPy, values and gradients."""

import conv_reference as reference
import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv import conv

BATCH, LENGTH, HEADS, D_KV = 2, 8, 4, 3


def _dims(length=LENGTH, taps=None):
  batch, length, heads, d_kv = (
      mtf.Dimension('batch', BATCH), mtf.Dimension('length', length),
      mtf.Dimension('heads', HEADS), mtf.Dimension('d_kv', D_KV))
  return batch, length, heads, d_kv, mtf.Dimension('taps', taps)


def _case(taps, length=LENGTH, dynamic=False, packed=False):
  rng = np.random.RandomState(taps + length)
  x = rng.randn(BATCH, length, HEADS, D_KV).astype('float32')
  shape = (BATCH, length) if dynamic else ()
  filters = rng.randn(*shape, HEADS, taps).astype('float32')
  segments = None
  if packed == 'padded':
    segments = np.array([[1] * (length - 3) + [0] * 3, [1] * length], 'int32')
  elif packed:
    segments = np.sort(rng.randint(0, 3, (BATCH, length)), -1).astype('int32')
    segments[0] = segments[0][::-1]
  return x, filters, segments


def _run(x, filters, segments, offsets, **kwargs):
  batch, length, heads, d_kv, taps = _dims(x.shape[1], filters.shape[-1])
  filter_dims = [heads, taps]
  if filters.ndim == 4:
    filter_dims = [batch, length] + filter_dims
  arrays = [(x, [batch, length, heads, d_kv]), (filters, filter_dims)]
  if segments is not None:
    arrays.append((segments, [batch, length]))

  def fn(x, filters, segments=None):
    return conv.local_conv(x, filters, offsets, length, segments)
  return harness.run_op(fn, arrays, **kwargs)


def _check(x, filters, segments, offsets, atol=1e-5, **kwargs):
  y, grads, lowering = _run(x, filters, segments, offsets, **kwargs)
  expected = reference.local_conv(x, filters, offsets, segments)
  np.testing.assert_allclose(y, expected, atol=atol)
  dx, dfilters = reference.local_conv_gradients(
      x, filters, offsets, harness.output_weights(y.shape), segments)
  np.testing.assert_allclose(grads[0], dx, atol=atol)
  np.testing.assert_allclose(grads[1], dfilters, atol=5 * atol)
  return lowering


@pytest.mark.parametrize('taps', [1, 2, 3, 4, 7, 15])
@pytest.mark.parametrize('dilation_rate', [1, 3])
@pytest.mark.parametrize('causal', [False, True])
def test_offsets_are_those_of_equation_1(taps, dilation_rate, causal):
  fn = conv.causal_offsets if causal else conv.centred_offsets
  assert fn(taps, dilation_rate) == reference.offsets(
      taps, dilation_rate, causal)


def test_offsets_of_the_paper_s_examples():
  assert conv.centred_offsets(7) == [-3, -2, -1, 0, 1, 2, 3]
  assert conv.centred_offsets(4) == [-2, -1, 0, 1]
  assert conv.causal_offsets(4, dilation_rate=2) == [-6, -4, -2, 0]


# 15 taps are longer than the sequence; 8 are as long as it.
@pytest.mark.parametrize('taps', [1, 2, 7, 8, 15])
@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize('packed', [False, True, 'padded'])
def test_values_and_gradients(taps, causal, dynamic, packed):
  offsets = reference.offsets(taps, 1, causal)
  _check(*_case(taps, dynamic=dynamic, packed=packed), offsets)


@pytest.mark.parametrize('dilation_rate', [2, 5])
@pytest.mark.parametrize('causal', [False, True])
def test_dilation(dilation_rate, causal):
  offsets = reference.offsets(4, dilation_rate, causal)
  _check(*_case(4, length=11, packed=True), offsets)


@pytest.mark.parametrize('offsets', [[-4, -3, -2], [1, 2], [0], [5, 6]])
def test_offsets_on_one_side(offsets):
  _check(*_case(len(offsets)), offsets)


def test_offsets_in_any_order():
  _check(*_case(3, packed=True), [2, -1, 0])


def test_filters_per_channel():
  batch, length, heads, d_kv, taps = _dims(taps=3)
  rng = np.random.RandomState(0)
  x = rng.randn(BATCH, LENGTH, HEADS, D_KV).astype('float32')
  filters = rng.randn(HEADS, D_KV, 3).astype('float32')
  y, _, _ = harness.run_op(
      lambda x, w: conv.local_conv(x, w, [-1, 0, 1], length),
      [(x, [batch, length, heads, d_kv]), (filters, [heads, d_kv, taps])])
  for c in range(D_KV):
    expected = reference.local_conv(
        x[..., c:c + 1], filters[:, c], [-1, 0, 1])
    np.testing.assert_allclose(y[..., c:c + 1], expected, atol=1e-5)


@pytest.mark.parametrize('dynamic', [False, True])
def test_bfloat16_is_near_float32(dynamic):
  x, filters, segments = _case(7, dynamic=dynamic, packed=True)
  batch, length, heads, d_kv, taps = _dims(taps=7)
  filter_dims = ([batch, length] if dynamic else []) + [heads, taps]
  offsets = conv.centred_offsets(7)

  def fn(x, filters, segments):
    y = conv.local_conv(
        mtf.cast(x, tf.bfloat16), mtf.cast(filters, tf.bfloat16), offsets,
        length, segments)
    assert y.dtype == tf.bfloat16
    return y
  y, grads, _ = harness.run_op(fn, [
      (x, [batch, length, heads, d_kv]), (filters, filter_dims),
      (segments, [batch, length])])
  scale = np.abs(x).max() * np.abs(filters).max() * 7
  np.testing.assert_allclose(
      y, reference.local_conv(x, filters, offsets, segments),
      atol=2e-2 * scale)
  dx, dfilters = reference.local_conv_gradients(
      x, filters, offsets, harness.output_weights(y.shape), segments)
  np.testing.assert_allclose(grads[0], dx, atol=2e-2 * scale)
  np.testing.assert_allclose(grads[1], dfilters, atol=4e-2 * scale)


@pytest.mark.parametrize('mesh_shape, layout', [
    ('batch:2', harness.LAYOUT), ('model:2', harness.LAYOUT),
    ('batch:2;model:2', harness.LAYOUT), ('model:2', 'length:model'),
    ('batch:2;model:2', 'batch:batch,length:model')])
@pytest.mark.parametrize('dynamic', [False, True])
def test_splits(mesh_shape, layout, dynamic):
  lowering = _check(
      *_case(5, dynamic=dynamic, packed=True), conv.centred_offsets(5),
      mesh_shape=mesh_shape, layout=layout)
  counters = harness.counters(lowering)
  # Forward and both gradients, five taps each; every tap once.
  assert counters['einsum_unique'] >= 3 * 5 * BATCH * LENGTH * HEADS * D_KV


# Of 12 heads, parts of 6 or 3 begin in the midst of what a filter is for.
@pytest.mark.parametrize('num_filters', [1, 2, 3, 4, 12])
@pytest.mark.parametrize('mesh_shape', ['', 'model:2', 'batch:2;model:4'])
@pytest.mark.parametrize('dynamic', [False, True])
def test_filters_for_groups_of_heads(num_filters, mesh_shape, dynamic):
  rng = np.random.RandomState(num_filters)
  batch, length, _, d_kv, taps = _dims(taps=3)
  heads = mtf.Dimension('heads', 12)
  filters_dim = mtf.Dimension('filters', num_filters)
  x = rng.randn(BATCH, LENGTH, 12, D_KV).astype('float32')
  filters = rng.randn(*([BATCH, LENGTH] if dynamic else []), num_filters,
                      3).astype('float32')
  y, grads, _ = harness.run_op(
      lambda x, w: conv.local_conv(x, w, [-2, -1, 0], length),
      [(x, [batch, length, heads, d_kv]),
       (filters, [*([batch, length] if dynamic else []), filters_dim, taps])],
      mesh_shape)
  spread = np.repeat(filters, 12 // num_filters, axis=-2)
  np.testing.assert_allclose(
      y, reference.local_conv(x, spread, [-2, -1, 0]), atol=1e-5)
  dx, dspread = reference.local_conv_gradients(
      x, spread, [-2, -1, 0], harness.output_weights(y.shape))
  np.testing.assert_allclose(grads[0], dx, atol=1e-5)
  dfilters = dspread.reshape(
      *filters.shape[:-2], num_filters, -1, 3).sum(-2)
  np.testing.assert_allclose(grads[1], dfilters, atol=5e-5)


def test_filters_made_from_x_are_differentiated_once():
  x, _, _ = _case(D_KV)
  batch, length, heads, d_kv, taps = _dims(taps=D_KV)
  y, (grad,), _ = harness.run_op(
      lambda x: conv.local_conv(
          x, mtf.replace_dimensions(x, d_kv, taps), [-2, -1, 0], length),
      [(x, [batch, length, heads, d_kv])])
  dx, dfilters = reference.local_conv_gradients(
      x, x, [-2, -1, 0], harness.output_weights(y.shape))
  np.testing.assert_allclose(grad, dx + dfilters, atol=1e-5)


def test_multiply_adds_are_counted():
  x, filters, _ = _case(3)
  batch, length, heads, d_kv, taps = _dims(taps=3)
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    conv.local_conv(
        mtf.import_tf_tensor(mesh, x, mtf.Shape([batch, length, heads, d_kv])),
        mtf.import_tf_tensor(mesh, filters, mtf.Shape([heads, taps])),
        [-1, 0, 1], length)
    lowering = harness.lower(graph, mesh)
  assert harness.counters(lowering)['einsum'] == 3 * x.size


@pytest.mark.parametrize('filters, options, message', [
    ('heads taps', dict(offsets=[0, 1]), '3 taps, but there are 2 offsets'),
    ('d_kv taps', {}, 'must have the dimensions of x'),
    ('length batch heads taps', {}, 'must have the dimensions of x'),
    ('others taps', {}, 'Dimension.*others.* does not divide the first'),
    ('heads taps', dict(segments='batch'), 'segments .* must have'),
    ('heads taps', dict(lowering='bands'), "lowering .='bands'. must be one"),
    ('batch length heads taps', dict(lowering='depthwise'),
     "lowering .='depthwise'. cannot do dynamic filters"),
    ('heads taps', dict(lowering='band', offsets=[0, 1, 3]),
     'cannot do static filters with offsets .0, 1, 3.')])
def test_wrong_shapes_are_named(filters, options, message):
  dims = {d.name: d for d in _dims(taps=3)}
  dims['others'] = mtf.Dimension('others', 3)
  mesh = mtf.Mesh(mtf.Graph(), 'mesh')

  def zeros(names, dtype=tf.float32):
    return mtf.zeros(mesh, mtf.Shape([dims[n] for n in names.split()]), dtype)
  options = {'offsets': [-1, 0, 1], 'length_dim': dims['length'], **options}
  if 'segments' in options:
    options['segments'] = zeros(options['segments'], tf.int32)
  with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
    conv.local_conv(zeros('batch length heads d_kv'), zeros(filters), **options)
