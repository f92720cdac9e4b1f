"""What mesh-tensorflow tests of its Conv1D layers, tested of ours.

The situations are those of its transformer_layers_test.py (Conv1DLayer and
SeparableConv1DLayer: shapes, the state after a prefix, a step of decoding) and
of the convolutions in its layers_test.py (values, windows, batch dimensions),
and one more: its LocalConvAttnBlock, which it does not test. Where our layers
must give something else than its layers, the test says why.
"""

import conv_reference as reference
import gin
import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer, transformer_layers

from mtf_conv import layers, released

BATCH, LENGTH, D_MODEL = 2, 6, 6
IDS = np.arange(2, 2 + BATCH * LENGTH).reshape(BATCH, LENGTH)
TYPES = {'released light': 'lightweight_conv',
         'released dynamic': 'dynamic_conv'}
KINDS = ['light', 'dynamic', 'dilated', *TYPES]


def _layer(kind, filter_size=3, **options):
  """A layer of a decoder, which reads [i - (filter_size - 1), i]."""
  if kind == 'dilated':
    return layers.DilatedConv(
        3, 2, filter_sizes=[filter_size], num_filters=3, **options)
  if kind in TYPES:
    return released.LocalConvAttnBlock(
        1 - filter_size, 0, D_MODEL, attention_type=TYPES[kind])
  cls = {'light': layers.LightConv, 'dynamic': layers.DynamicConv}[kind]
  return cls(3, 2, filter_size=filter_size, num_filters=3, **options)


def _x(*shape, seed=0):
  return np.random.RandomState(seed).randn(*shape, D_MODEL).astype('float32')


class Layer(harness.Model):
  """A stack of a single layer, and no gin."""

  def __init__(self, layer, autoregressive=True, d_model=D_MODEL):
    gin.clear_config()
    self.mesh_shape, self.layout = '', harness.LAYOUT
    self.variable_dtype = mtf.VariableDType(tf.float32)
    self._layer = layer
    self._model = transformer.Unitransformer(
        transformer.LayerStack([layer]), d_model=d_model, input_vocab_size=16,
        output_vocab_size=16, autoregressive=autoregressive, max_length=LENGTH,
        positional_embedding=False)

  def __enter__(self):
    self._context = tf.Graph().as_default()
    self._context.__enter__()
    self.graph = mtf.Graph()
    self.mesh = mtf.Mesh(self.graph, 'mesh')
    return self

  def call(self, x, mode='eval', batch_names=('batch',), inputs=None,
           initial_position=None, **context):
    """Applies the layer; returns its output and the states that it keeps.

    Args:
      x: an array, [..., length, d_model], or [..., d_model] in a step.
      mode: of a transformer.Context.
      batch_names: the names of the first dimensions.
      inputs: the ids that the layer stack is given, IDS if None. In a decoder's
        training they are shifted: the first is 0.
      initial_position: an array, one for every row.
      **context: of a transformer.Context.
    """
    names = [*batch_names, 'length'][:x.ndim - 1]
    if inputs is None:
      inputs = IDS
      if mode == 'eval' and self._model.autoregressive:
        inputs = np.insert(IDS[:, :-1], 0, 0, axis=1)
      if mode == 'incremental':
        inputs = IDS[:, -1]
    if initial_position is not None:
      initial_position = self.tensor(np.int32(initial_position), 'batch')
    x = self.tensor(x, *names, 'd_model')
    context = transformer.Context(
        model=self._model, mesh=self.mesh, mode=mode,
        batch_dims=x.shape.dims[:len(batch_names)],
        length_dim=mtf.Dimension('length', LENGTH), new_states=[],
        variable_dtype=self.variable_dtype, sequence_id=1,
        inputs=self.tensor(np.int32(inputs), *names),
        initial_position=initial_position, **context)
    # Entered anew, the scope gives its variables the same names again.
    with tf.variable_scope('layer', reuse=tf.AUTO_REUSE):
      return self._layer.call(context, x), context.new_states

  def run(self, tensors, **weights):
    """Evaluates; the weights are random but for those that are given."""
    for name in [*weights]:
      weights[released.VARIABLES.get(name)] = weights[name]
    weights = {f'layer/{name}': value for name, value in weights.items()}
    return super().run(tensors, {
        v.name: weights.get(
            v.name, harness.initial_weight(v.name, v.shape.to_integer_list))
        for v in self.graph.trainable_variables})

  @property
  def w(self):
    """The weights under our names, with all taps of a filter in one."""
    found = {name.split('/', 1)[1]: value
             for name, value in self.weights.items()}
    w = {name: found.get(released_name, found.get(name))
         for name, released_name in released.VARIABLES.items()}
    for name, *taps in (
        ('filters', 'lightwt', 'kernel'), ('wq', 'dyn_conv', 'kernel'),
        ('wq_bias', 'dyn_conv', 'bias')):
      taps = [found[f] for f in sorted(found)
              if f.startswith(taps[0]) and f.endswith(taps[1])]
      w[name] = np.stack(taps, -1) if taps else found.get(name)
    return {name: value for name, value in w.items() if value is not None}


# The block in NumPy, of whichever kind.


def _product(w, name, x):
  return x @ w[name] + w.get(f'{name}_bias', 0)


def _gated_input(w, x, first_is_read):
  """X1; in a decoder of the release, id 0 is not read: the first position."""
  x1 = _product(w, 'wi', x) * reference.sigmoid(_product(w, 'ws', x))
  if not first_is_read:
    x1[:, 0] = 0
  return x1


def _output(w, x1, offsets, filters_of=None):
  """Everything after X1, which may have lost a position to the mask."""
  if 'filters' in w:
    filters = w['filters']
  else:
    of = x1 if filters_of is None else filters_of
    filters = np.einsum('bld,dn->bln', of, w['wq'].reshape(D_MODEL, -1))
    filters = (filters + w.get('wq_bias', np.zeros(1)).reshape(-1)).reshape(
        *x1.shape[:2], -1, len(offsets))
  filters = reference.softmax(filters)
  filters = np.repeat(filters, D_MODEL // filters.shape[-2], axis=-2)
  x2 = reference.local_conv(x1[..., None], filters, offsets)[..., 0]
  x2 += w.get('conv_bias', 0)
  if 'pointwise' in w:
    x2 = _product(w, 'pointwise', x2)
  return _product(w, 'wo', x2)


def _block(w, x, offsets, first_is_read=True):
  return _output(w, _gated_input(w, x, first_is_read), offsets,
                 filters_of=_gated_input(w, x, True))


# Shapes.


@pytest.mark.parametrize('kind', KINDS)
def test_output_is_shaped_as_the_input(kind):
  with Layer(_layer(kind)) as m:
    for mode in ('train', 'eval'):
      y, states = m.call(_x(BATCH, LENGTH), mode)
      assert y.shape.dimension_names == ['batch', 'length', 'd_model']
      assert y.shape.to_integer_list == [BATCH, LENGTH, D_MODEL]
      assert not states
    y, states = m.call(
        _x(BATCH, LENGTH), 'first_part', initial_position=[0, 0])
    assert y.shape.to_integer_list == [BATCH, LENGTH, D_MODEL]
    y, new_states = m.call(_x(BATCH), 'incremental', states=states)
    assert y.shape.dimension_names == ['batch', 'd_model']
    assert [s.shape for s in new_states] == [s.shape for s in states]


# The state.


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('prefix_lengths', [
    (0, 0), (2, 2), (1, 4), (LENGTH, LENGTH - 1)])
def test_the_state_is_the_end_of_the_prefix(kind, prefix_lengths):
  """Zeros, then as much of the prefix as a filter of 4 still reaches.

  Upstream keeps 4 positions of the layer's input. Here it is 3 of the gated
  input: the fourth is always the current position, and X1 is not computed
  again. The prefix may end where the sequence ends; upstream loses it there.
  What lies behind the prefix is not zero here as it is there.
  """
  x = _x(BATCH, LENGTH)
  with Layer(_layer(kind, filter_size=4)) as m:
    _, states = m.call(x, 'first_part', initial_position=prefix_lengths)
    state, = m.run(states)
    # The release's models were trained not to read a decoder's first position.
    x1 = _gated_input(m.w, x, first_is_read=kind not in TYPES)
  expected = np.zeros([BATCH, 3, D_MODEL])
  for row, length in enumerate(prefix_lengths):
    known = x1[row, max(0, length - 3):length]
    expected[row, 3 - len(known):] = known
  np.testing.assert_allclose(
      state.reshape(expected.shape), expected, atol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_a_step_reads_the_state_and_moves_it_by_one(kind):
  x, old = _x(BATCH), _x(BATCH, 3, seed=1)
  with Layer(_layer(kind, filter_size=4)) as m:
    _, (state,) = m.call(_x(BATCH, LENGTH), 'first_part',
                         initial_position=[0, 0])
    state = m.tensor(old.reshape(state.shape.to_integer_list),
                     *state.shape.dimension_names)
    y, (new,) = m.call(x, 'incremental', states=[state])
    y, new = m.run([y, new])
    w = m.w
  x1 = _gated_input(w, x[:, None], first_is_read=True)
  window = np.concatenate([old, x1], axis=1)
  np.testing.assert_allclose(new.reshape(old.shape), window[:, 1:], atol=1e-6)
  np.testing.assert_allclose(
      y, _output(w, window, [-3, -2, -1, 0])[:, -1], atol=1e-5)


# With the filter as long as the sequence, upstream's separable layers stop at
# an error.
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('filter_size', [3, LENGTH, LENGTH + 2])
def test_steps_give_what_the_whole_pass_gives(kind, filter_size):
  x = _x(BATCH, LENGTH)
  with Layer(_layer(kind, filter_size)) as m:
    whole, _ = m.call(x)
    _, states = m.call(x, 'first_part', initial_position=[0, 0])
    steps = []
    for t in range(LENGTH):
      y, states = m.call(
          x[:, t], 'incremental', states=states,
          inputs=IDS[:, t - 1] if t else np.zeros(BATCH, int))
      steps.append(y)
    whole, *steps = m.run([whole, *steps])
    expected = _block(m.w, x, reference.offsets(filter_size, causal=True),
                      first_is_read=kind not in TYPES)
  np.testing.assert_allclose(whole, expected, atol=1e-5)
  np.testing.assert_allclose(np.stack(steps, 1), expected, atol=1e-5)


# Values.


@pytest.mark.parametrize('autoregressive, expected', [
    (False, [[8, -6], [2, -1], [4, -2], [6, 1], [6, -3], [3, 1]]),
    (True, [[0, 0], [8, -6], [2, -1], [4, -2], [6, 1], [6, -3]])])
def test_values_worked_out_by_hand(autoregressive, expected):
  """A depthwise filter for each channel, then a product over the channels.

  Upstream's Conv1DLayer has a product over the channels in every tap, which no
  layer of the paper has: the case that is left is its separable convolution.
  """
  layer = layers.LightConv(
      2, 1, filter_size=3, num_filters=None, softmax=False, gated=False)
  x = np.float32([[[1, 0], [0, 2], [1, 1], [3, 1], [0, 0], [2, 1]]])
  with Layer(layer, autoregressive, d_model=2) as m:
    y, _ = m.call(x, inputs=IDS[:1])
    y, = m.run([y], wi=np.eye(2), wo=np.array([[1, 0], [1, -1]]),
               filters=np.array([[[1, 2, 0]], [[0, -1, 3]]]))
  np.testing.assert_array_equal(y[0], expected)


@pytest.mark.parametrize('kind', TYPES)
def test_a_window_is_what_it_is_said_to_be(kind):
  x = _x(BATCH, LENGTH)
  layer = released.LocalConvAttnBlock(
      -1, 2, D_MODEL, attention_type=TYPES[kind])
  with Layer(layer, autoregressive=False) as m:
    y, = m.run([m.call(x)[0]])
    np.testing.assert_allclose(y, _block(m.w, x, [-1, 0, 1, 2]), atol=1e-5)


@pytest.mark.parametrize('kind', ['light', 'dynamic', 'dilated'])
def test_four_taps_are_those_of_equation_1(kind):
  """Not -1..2: our own layers take a size, and the paper says its sides."""
  x = _x(BATCH, LENGTH)
  with Layer(_layer(kind, filter_size=4), autoregressive=False) as m:
    y, = m.run([m.call(x)[0]])
    np.testing.assert_allclose(y, _block(m.w, x, [-2, -1, 0, 1]), atol=1e-5)


@pytest.mark.parametrize('kind', ['light', 'dilated', 'released light'])
def test_channels_do_not_mix(kind):
  """Unlike in Conv1DLayer, and in dynamic filters, which read all channels."""
  x = _x(BATCH, LENGTH)
  other = x + 5 * np.eye(D_MODEL, dtype='float32')[2]
  options = {} if kind in TYPES else {'gated': False}
  with Layer(_layer(kind, **options)) as m:
    one, _ = m.call(x)
    other, _ = m.call(other)
    eye = np.eye(D_MODEL)
    one, other = m.run(
        [one, other], wi=eye, wo=eye, pointwise=eye, ws=0 * eye)
  changed = np.abs(one - other).max((0, 1)) > 1e-3
  np.testing.assert_array_equal(changed, np.arange(D_MODEL) == 2)


@pytest.mark.parametrize('kind', KINDS)
def test_every_batch_dimension_is_one_of_rows(kind):
  """No layer of ours shortens its input, as upstream's conv1d can (VALID)."""
  x = _x(3, BATCH, LENGTH)
  inputs = np.stack([IDS] * 3)
  with Layer(_layer(kind), autoregressive=False) as m:
    y, _ = m.call(x, batch_names=('outer_batch', 'batch'), inputs=inputs)
    y, *rows = m.run([y, *(m.call(part)[0] for part in x)])
  assert np.abs(rows[0] - rows[1]).max() > 0.1
  np.testing.assert_allclose(y, rows, atol=1e-6)


# mesh-tensorflow's LocalConvAttnBlock beside ours.


def _both(attention_type, window, autoregressive, compute):
  """What compute returns of mesh-tensorflow's block, and of ours."""
  results = []
  for cls in (transformer_layers.LocalConvAttnBlock,
              released.LocalConvAttnBlock):
    layer = cls(*window, D_MODEL, attention_type=attention_type)
    with Layer(layer, autoregressive) as m:
      results.append(m.run(compute(m)))
      shapes = {name: w.shape for name, w in m.weights.items()}
    results[-1].append(shapes)
  return results


@pytest.mark.parametrize('attention_type', TYPES.values())
@pytest.mark.parametrize('window, autoregressive', [
    ((-1, 2), False), ((-2, 0), True)])
def test_the_block_is_upstreams(attention_type, window, autoregressive):
  x = _x(BATCH, LENGTH)
  inputs = IDS * (np.arange(LENGTH) < [[LENGTH], [4]])  # With padding.
  (upstream, shapes), (ours, our_shapes) = _both(
      attention_type, window, autoregressive,
      lambda m: [m.call(x, inputs=inputs)[0]])
  assert our_shapes == shapes
  assert np.abs(upstream).max() > 0.1
  np.testing.assert_allclose(ours, upstream, atol=1e-5)


@pytest.mark.parametrize('attention_type', TYPES.values())
def test_its_steps_are_upstreams_once_the_first_position_is_past(
    attention_type):
  """Until then, upstream's steps read what its training pass does not read."""
  x = _x(BATCH, LENGTH)

  def steps(m):
    _, states = m.call(
        x, 'first_part', initial_position=[0, 0], inputs=0 * IDS)
    for t in range(LENGTH):
      y, states = m.call(
          x[:, t], 'incremental', states=states,
          inputs=IDS[:, t - 1] if t else np.zeros(BATCH, int))
      yield y

  (*upstream, _), (*ours, _) = _both(attention_type, (-2, 0), True, steps)
  differences = np.abs(np.subtract(ours, upstream)).max((1, 2))
  assert (differences[:3] > 1e-3).all()
  assert (differences[3:] < 1e-5).all()
