"""Every way to compute the convolution against plain NumPy."""

import os

import conv_reference as reference
import hypothesis
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from hypothesis import strategies as st
from tensorflow.python.compiler.xla import xla
from tensorflow.python.tpu import tpu

from mtf_conv import conv_lowerings

NAMES = [*conv_lowerings.NAMES, None]


def _arrays(shape, taps, dynamic, packing, seed=0):
  """x, dy, filters and segments of a convolution."""
  rng = np.random.RandomState(seed)
  rows, length, groups, _ = shape
  x, dy = rng.randn(2, *shape).astype('float32')
  filters = rng.randn(
      *([rows, length] if dynamic else []), groups, taps).astype('float32')
  segments = np.ones([rows, length], 'int32')
  if packing == 'padded':
    segments[0, length // 2:] = 0
  elif packing == 'several':
    segments = np.sort(rng.randint(0, 4, (rows, length)), -1).astype('int32')
  return x, dy, filters, None if packing is None else segments


def _run(name, x, dy, filters, offsets, segments, in_xla=False):
  """y, dx and dfilters."""
  def build(x, dy, filters, segments):
    y = conv_lowerings.convolve(name, x, filters, offsets, segments)
    return (y, *conv_lowerings.gradients(
        name, x, filters, dy, offsets, segments))

  with tf.Graph().as_default(), tf.Session() as session:
    inputs = [None if a is None else tf.constant(a)
              for a in (x, dy, filters, segments)]
    if in_xla:
      if segments is None:
        outputs = xla.compile(lambda *a: build(*a, None), inputs[:3])
      else:
        outputs = xla.compile(build, inputs)
    else:
      outputs = build(*inputs)
    return session.run(outputs)


def _check(name, shape, offsets, dynamic, packing, **kwargs):
  x, dy, filters, segments = _arrays(shape, len(offsets), dynamic, packing)
  y, dx, dfilters = _run(name, x, dy, filters, offsets, segments, **kwargs)
  np.testing.assert_allclose(
      y, reference.local_conv(x, filters, offsets, segments), atol=2e-5)
  expected = reference.local_conv_gradients(x, filters, offsets, dy, segments)
  np.testing.assert_allclose(dx, expected[0], atol=2e-5)
  np.testing.assert_allclose(dfilters, expected[1], atol=1e-4, rtol=1e-5)


@hypothesis.settings(
    max_examples=300 if os.environ.get('RUN_SLOW') == '1' else 40,
    deadline=None, derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(
    name=st.sampled_from(NAMES), rows=st.integers(1, 2),
    length=st.integers(1, 70), groups=st.sampled_from([1, 2, 3]),
    channels=st.sampled_from([1, 3, 8]), taps=st.integers(1, 12),
    dilation_rate=st.integers(1, 4), first=st.integers(-40, 3),
    dynamic=st.booleans(),
    packing=st.sampled_from([None, 'whole', 'padded', 'several']))
def test_any_shape(name, rows, length, groups, channels, taps, dilation_rate,
                   first, dynamic, packing):
  offsets = [first + tap * dilation_rate for tap in range(taps)]
  hypothesis.assume(name is None or conv_lowerings.supports(
      name, not dynamic, offsets))
  _check(name, [rows, length, groups, channels], offsets, dynamic, packing)


# 40 positions of blocks of 32; windows of more than two blocks.
@pytest.mark.parametrize('name', ['slices', 'band', 'matrix'])
@pytest.mark.parametrize('offsets', [
    range(-3, 4), range(-30, 1), range(-120, 1, 4)])
def test_several_blocks(name, offsets):
  for dynamic in (False, True):
    _check(name, [2, 40, 2, 8], list(offsets), dynamic, 'several')


@pytest.mark.parametrize('name', ['slices', 'band', 'matrix'])
@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize('packing', [None, 'several'])
def test_under_xla(name, dynamic, packing):
  _check(name, [1, 150, 2, 4], list(range(-15, 16)), dynamic, packing,
         in_xla=True)


@pytest.mark.parametrize('name', NAMES)
def test_in_t5_s_main(name):
  tf.disable_v2_tensorshape()  # As T5's main does.
  try:
    _check(name, [2, 40, 2, 8], list(range(-6, 1)), False, 'several')
  finally:
    tf.enable_v2_tensorshape()


def test_what_is_chosen():
  x = tf.zeros([1, 64, 2, 8])
  causal, dilated = [-2, -1, 0], [-4, -2, 0]
  many = list(range(-30, 1))
  chosen = conv_lowerings.fastest
  assert chosen(x, True, causal) == 'depthwise'
  assert chosen(x, True, dilated) == 'band'
  assert chosen(x, False, causal) == 'band'
  assert chosen(x[..., :1], False, causal) == 'slices'
  assert chosen(tf.cast(x, tf.bfloat16), True, causal) == 'band'
  in_xla = []
  xla.compile(lambda x: in_xla.extend(
      chosen(x, static, offsets) for static in (True, False)
      for offsets in (causal, many)) or x, [x])
  assert in_xla == ['slices', 'band', 'slices', 'band']


def test_what_is_chosen_on_tpus():
  """tests/bench_tpu_test.py has the table that it follows."""
  found = {}

  def look(x):
    wide = tf.zeros([2, 512, 2, 384], tf.bfloat16)
    for name, x in {'wide': wide, 'long': tf.zeros([1, 1024, 2, 384]),
                    'float32': tf.cast(wide, tf.float32),
                    'narrow': wide[..., :1]}.items():
      found[name] = [conv_lowerings.fastest(x, static, range(k), several)
                     for static, several in ((True, False), (True, True),
                                             (False, True))
                     for k in (7, 31)]
    return x

  with tf.Graph().as_default():
    tpu.replicate(look, [[tf.zeros([1])]])
  slices, band = 'slices', 'band'
  assert found == {
      'wide': ['matrix'] * 4 + [slices, band],
      'long': [slices, band] * 3, 'float32': [slices, band] * 3,
      'narrow': [slices, slices] * 3}
