"""The properties of a mixer, each checked on a small model around it."""

import contextlib
import functools
import inspect
from typing import NamedTuple, Optional

import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv.base import errors, explain, gin_values
from mtf_conv.measure import models
from mtf_conv.testing import model


class Property(NamedTuple):
  """What a mixer has to have.

  Attributes:
    holds: a sentence that says that it has it.
    fails: one that says that it does not.
    tolerance: how far apart two numbers may be that should be the same, as a
      part of the greatest. It allows for rounding, which an FFT carries from
      every position to every other.
  """

  holds: str
  fails: str
  tolerance: float


PROPERTIES = {
    'causality': Property(
        'no position of the decoder reads the future',
        'a position of the decoder reads the future', 1e-5),
    'packing': Property(
        'packed examples do not see each other',
        'a packed example sees another, or differs from itself alone', 1e-5),
    'padding': Property(
        'what stands in padding, and how much, says nothing',
        'logits change with what stands in padding, or with how much', 1e-5),
    'first_part': Property(
        'the pass over a prefix gives the logits of training',
        'the pass over a prefix gives other logits than training', 1e-4),
    'incremental': Property(
        'decoding from the start gives the logits of training',
        'decoding from the start gives other logits than training', 1e-4),
    'prefixes': Property(
        'decoding after a prefix gives the logits of training',
        'decoding after a prefix gives other logits than training', 1e-4),
    'beams': Property(
        'beams have the scores of training',
        'beams have other scores than in training', 1e-3),
    'splits': Property(
        'a mixer split over a mesh is the same mixer',
        'a mixer split over a mesh is another mixer', 1e-4),
    'bfloat16': Property(
        'bfloat16 is near float32', 'bfloat16 is far from float32', 0.1),
    'gradients': Property(
        'gradients are those of finite differences',
        'gradients are not those of finite differences', 1e-2),
}

_LENGTH = 10
_D_KV = 4


class Result(NamedTuple):
  """How a mixer does in one property.

  Attributes:
    name: of the property, a key of PROPERTIES.
    passed: whether the mixer has it.
    difference: the greatest between two numbers that should be the same,
      relative to the greatest of these numbers; None if there are none.
    tolerance: how great it may be.
    detail: a sentence that says so.
  """

  name: str
  passed: bool
  difference: Optional[float]
  tolerance: float
  detail: str


def check_mixer(mixer, bindings=(), properties=tuple(PROPERTIES),
                say=lambda result: None):
  """Checks the properties of a mixer on small models, in less than a minute.

  The models have the layers and heads of the gin file, and channels and a
  vocabulary as small as can be. Variables are normally distributed, whatever
  their initializers: a weight that has to lie in a range is a function of one.

  Args:
    mixer: a model's name or gin file, such as 'lightconv.tiny' or
      'models/my.tiny.gin'. Or a subclass of GatedMixer, or a function without
      arguments that returns a new transformer.TransformerLayer.
    bindings: gin bindings that come after the file.
    properties: the names of those to check.
    say: is told of each Result.

  Returns:
    A list of Results in the order of PROPERTIES.

  Raises:
    errors.UserError: there is no such model, or none can be built of it.
  """
  for name in properties:
    if name not in PROPERTIES:
      raise errors.UserError(
          f'unknown property {name!r}: expected one of {[*PROPERTIES]}'
          f'{errors.nearest(name, PROPERTIES)}')
  subject = _Subject(mixer, bindings)
  subject.require_that_it_builds()
  results = []
  for name in PROPERTIES:
    if name in properties:
      results.append(_result(subject, name))
      say(results[-1])
  return results


def _result(subject, name):
  holds, fails, tolerance = PROPERTIES[name]
  try:
    difference = float(getattr(subject, name)())
  except Exception as error:  # Whatever a user's layer raises, it fails.
    line = explain.one_line(error) or ' '.join(
        [f'{type(error).__name__}:', *str(error).splitlines()[:1]])
    return Result(name, False, None, tolerance, line)
  passed = difference <= tolerance  # Not so if it is not a number.
  return Result(name, passed, difference, tolerance, holds if passed else fails)


class _Subject:
  """A mixer in small models; a method for each property.

  Each returns the greatest difference, relative to the greatest value.
  """

  def __init__(self, mixer, bindings):
    self._mixer = None
    self._files = ['models/transformer.tiny.gin', 'models/mixer.gin']
    if isinstance(mixer, str):
      self._files = models.resolve(mixer, sizes=('tiny',))
    elif not callable(mixer):
      raise errors.UserError(
          f'mixer (={mixer!r}) must be a model, a class of layers or a '
          'function that returns a layer')
    else:
      self._mixer = _maker(mixer)
    with _explained():
      models.parse(self._files, bindings)
    self._num_heads = _macro('num_heads')
    self._bindings = [
        *bindings, f'd_model = {self._num_heads * _D_KV}', f'd_kv = {_D_KV}',
        'd_ff = 32']

  def _model(self, *bindings, **options):
    return model.Model(self._files, [*self._bindings, *bindings],
                       mixer=self._mixer, **options)

  def require_that_it_builds(self):
    """Raises a UserError with one line if the pass of training does not."""
    with _explained(), self._model() as m:
      model.teacher_logits(m, _ids(1, 2), _ids(2, 2))

  @functools.cached_property
  def _passes(self):
    """The logits of training for a few batches that differ in one thing.

    All are made by one graph: where it is given the same, it gives the same
    bits. Row r is about position r.
    """
    source, targets, other_source, other_targets = (
        _ids(seed, _LENGTH) for seed in range(1, 5))
    row, position = np.ogrid[:_LENGTH, :_LENGTH]
    ones = np.ones_like(source)
    # Two examples, the first up to position r; only one in row 0.
    first = position < row
    segments = np.where(first, 1, 2)
    second_alone = _moved_left(segments == 2)
    # One example up to position r, then padding; none in row 0.
    shown = first.astype(int)
    batches = {
        'plain': (source, targets, ones),
        'another future': (
            source, np.where(first, targets, other_targets), ones),
        'packed': (source, targets, segments),
        'another first': (
            np.where(first, other_source, source),
            np.where(first, other_targets, targets), segments),
        'another second': (
            np.where(first, source, other_source),
            np.where(first, targets, other_targets), segments),
        'second alone': (
            _moved_left(source) * second_alone,
            _moved_left(targets) * second_alone, second_alone.astype(int)),
        'padded': (source * shown, targets * shown, shown),
        'filled': (np.where(shown, source, 17), np.where(shown, targets, 17),
                   shown)}
    logits = _packed_logits(self._model, [*batches.values()])
    if np.array_equal(logits[0], logits[1]):
      raise errors.UserError(
          'logits do not change with the targets: there is nothing to check')
    longer = [np.pad(array, ((0, 0), (0, 6))) for array in batches['padded']]
    return {**dict(zip(batches, logits)),
            'padded more': _packed_logits(self._model, [longer])[0]}

  def causality(self):
    """The logits at position r read the targets before it."""
    row, position = np.ogrid[:_LENGTH, :_LENGTH]
    past = position <= row
    return _difference(self._passes['plain'][past],
                       self._passes['another future'][past])

  def packing(self):
    """Neither example changes with the other; the second is as if alone."""
    row, position = np.ogrid[:_LENGTH, :_LENGTH]
    first = position < row
    packed = self._passes['packed']
    at_start = _moved_left(~first)
    return np.max([
        _difference(packed[~first], self._passes['another first'][~first]),
        _difference(packed[first], self._passes['another second'][first]),
        _difference(_moved_left(packed)[at_start],
                    self._passes['second alone'][at_start])])

  def padding(self):
    """Rows without any example count too: an average over nothing is NaN."""
    row, position = np.ogrid[:_LENGTH, :_LENGTH]
    shown = position < row
    padded, longer = self._passes['padded'], self._passes['padded more']
    if not np.isfinite(longer).all():
      return np.nan
    return np.max([
        _difference(padded[shown], self._passes['filled'][shown]),
        _difference(padded[shown], longer[:, :_LENGTH][shown])])

  @functools.cached_property
  def _three_ways(self):
    """Differences of first_part and of steps; row r has a prefix of r ids.

    The last row has none, and another first id: T5's steps can begin with any,
    its first_part begins with 0.
    """
    prefix_lengths = [*range(_LENGTH), 0]
    first_ids = [0] * _LENGTH + [5]
    with self._model() as m:
      first_part, steps, largest = model.three_way_differences(
          m, _ids(2, len(first_ids)), prefix_lengths, first_ids)
    return first_part / largest, steps / largest

  def first_part(self):
    """See PROPERTIES."""
    first_part, _ = self._three_ways
    return np.max(first_part[:-1])

  def incremental(self):
    """See PROPERTIES."""
    _, steps = self._three_ways
    return np.max(steps[[0, -1]])

  def prefixes(self):
    """See PROPERTIES."""
    _, steps = self._three_ways
    return np.max(steps[1:-1])

  def beams(self):
    """Scores are sums over positions, divided by a length penalty."""
    difference, largest, _ = model.beam_difference(
        self._model, _ids(3, 3)[:, :6])
    return difference / largest

  def splits(self):
    """Of the mixer's output and gradients, on meshes and on one device."""
    meshes = [('batch:2', model.LAYOUT), ('model:2', 'length:model')]
    if self._num_heads % 2 == 0:
      meshes += [('model:2', model.LAYOUT), ('batch:2;model:2', model.LAYOUT)]
    expected = self._outputs_and_gradients()
    # A gradient that should be 0 is rounding, and differs from mesh to mesh.
    rounding = 1e-3 * np.max([np.abs(array).max() for array in expected])
    return np.max([
        _difference(a, b, rounding) for mesh_shape, layout in meshes
        for a, b in zip(expected, self._outputs_and_gradients(
            mesh_shape=mesh_shape, layout=layout))])

  def _outputs_and_gradients(self, **options):
    with self._model(**options) as m:
      layers = [_Layer(m, stack) for stack in (m.encoder, m.decoder)]
      x = np.random.RandomState(7).randn(*layers[0].x_shape)
      with m.evaluating([t for layer in layers for t in (
          layer.y, *layer.gradients)]) as evaluate:
        return evaluate({layer.placeholder: x for layer in layers})

  def bfloat16(self):
    """With variables in float32, and in bfloat16."""
    logits = []
    for masters, activations in (
        (tf.float32, tf.float32), (tf.float32, tf.bfloat16),
        (tf.bfloat16, tf.bfloat16)):
      dtype = mtf.VariableDType(masters, tf.float32, activations)
      with self._model(variable_dtype=dtype) as m:
        y, _ = m.bitransformer.call_simple(
            m.ids(_ids(1, 2)), m.ids(_ids(2, 2)), compute_loss=False,
            mode='eval', variable_dtype=dtype)
        logits += m.run([mtf.cast(y, tf.float32)])
    return np.max([_difference(logits[0], other) for other in logits[1:]])

  def gradients(self):
    """Of the mixer alone, in encoder and decoder, on packed rows."""
    differences = []
    for stack in ('encoder', 'decoder'):
      with self._model() as m:
        differences += _directional_differences(m, _Layer(m, getattr(m, stack)))
    return np.max(differences)


@contextlib.contextmanager
def _explained():
  """Makes a UserError of what a user can mend."""
  try:
    yield
  except Exception as error:
    line = explain.one_line(error)
    if not line:
      raise
    raise errors.UserError(line) from error


def _maker(mixer):
  """A function that makes layers, which says so if they are none."""
  arguments = {}
  if isinstance(mixer, type):
    _require_layer(mixer)
    wanted = inspect.signature(mixer).parameters
    arguments = {name: value for name, value in (
        ('num_heads', 4), ('d_kv', _D_KV)) if name in wanted}

  def make():
    layer = mixer(**arguments)
    _require_layer(type(layer))
    return layer

  return make


def _require_layer(cls):
  if not issubclass(cls, transformer.TransformerLayer):
    raise errors.UserError(
        f'{cls.__name__} is no layer: a mixer must be a mesh_tensorflow '
        'transformer.TransformerLayer')


def _macro(name):
  """The value of one of T5's macros."""
  value = gin_values.macro(name)
  if value is None:
    raise errors.UserError(f'the gin files must bind the macro {name}')
  return value


def _ids(seed, batch):
  return np.random.RandomState(seed).randint(
      2, model.VOCABULARY, (batch, _LENGTH))


def _difference(one, other, least=0):
  """The greatest difference, relative to the greatest value, or to least."""
  difference = np.abs(one - other).max()
  if difference == 0:
    return 0.0
  return difference / np.maximum(np.abs(one).max(), least)


def _packed_logits(make_model, batches):
  """Logits of batches (source, targets, segments) of one shape, in one graph.

  Args:
    make_model: a function that returns a Model.
    batches: a list of tuples of arrays, [batch, length].

  Returns:
    A list of arrays, [batch, length, vocab].
  """
  shape = np.shape(batches[0][0])
  with make_model() as m:
    (source, targets, segments, position), placeholders = zip(*[
        m.placeholder(shape, 'batch', 'length') for _ in range(4)])
    logits, _ = m.bitransformer.call_simple(
        source, targets, compute_loss=False, mode='eval',
        encoder_sequence_id=segments, decoder_sequence_id=segments,
        encoder_position=position, decoder_position=position)
    with m.evaluating([logits]) as evaluate:
      return [evaluate(dict(zip(
          placeholders, (*batch, _positions(batch[-1])))))[0]
              for batch in batches]


def _moved_left(rows):
  """Row r of [batch, length, ...] turned around by r positions."""
  return np.stack([np.roll(row, -r, axis=0) for r, row in enumerate(rows)])


def _positions(segments):
  """The position of each token in its segment, as T5 packs it."""
  index = np.arange(segments.shape[1])
  starts = np.diff(segments, axis=1, prepend=-1) != 0
  return index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)


class _Layer:
  """The first layer of a stack, on two rows: two examples and padding; one.

  Attributes:
    x_shape, placeholder: of what the layer is given.
    weights: of the elements of y, by which they are summed up; none for
      padding, which nobody reads.
    y: the layer's output, an mtf Tensor.
    variables: its variables.
    gradients: those of the weighted sum for x and the variables, mtf Tensors.
  """

  def __init__(self, m, stack):
    segments = np.array([[1] * 4 + [2] * 4 + [0] * 2, [1] * 10])
    self.x_shape = (*segments.shape, stack.model_dim.size)
    dims = [mtf.Dimension('batch', 2), mtf.Dimension('length', 10),
            stack.model_dim]
    self.placeholder = tf.placeholder(tf.float32, self.x_shape)
    x = mtf.import_tf_tensor(m.mesh, self.placeholder, mtf.Shape(dims))
    positions = m.ids(_positions(segments))
    order = mtf.range(m.mesh, dims[1], tf.int32)
    context = transformer.Context(
        model=stack, mesh=m.mesh, batch_dims=dims[:1], length_dim=dims[1],
        mode='eval', variable_dtype=m.variable_dtype, losses=[],
        position=positions, sequence_id=m.ids(segments),
        inputs=m.ids(_ids(1, 2)), write_priority=order, read_priority=order)
    known = len(m.graph.trainable_variables)
    with tf.variable_scope(stack.name):
      self.y = stack.layer_stack.layers[0].call(context, x)
    self.variables = m.graph.trainable_variables[known:]
    self.weights = np.random.RandomState(8).randn(
        *self.x_shape) * (segments > 0)[..., None]
    loss = mtf.reduce_sum(self.y * m.tensor(
        self.weights.astype('float32'), *[d.name for d in dims]))
    self.gradients = mtf.gradients(
        [loss], [x, *(v.outputs[0] for v in self.variables)])


def _directional_differences(m, layer, step=1e-2):
  """Derivatives in a random direction, and finite differences.

  Args:
    m: a Model.
    layer: a _Layer of it.
    step: of the finite differences.

  Returns:
    A list of relative differences, for x and for each variable.
  """
  rng = np.random.RandomState(9)
  with m.evaluating([layer.y, *layer.gradients]) as evaluate:
    values = {'x': rng.randn(*layer.x_shape), **m.weights}

    def weighted_sum(name, change):
      moved = {**values, name: values[name] + change}
      y, *_ = evaluate({layer.placeholder: moved.pop('x')}, moved)
      return (y.astype('float64') * layer.weights).sum()

    _, *gradients = evaluate({layer.placeholder: values['x']})
    derivatives, expected = [], []
    for name, gradient in zip(
        ['x', *(v.name for v in layer.variables)], gradients):
      direction = rng.randn(*values[name].shape)
      derivatives.append((gradient * direction).sum())
      expected.append((weighted_sum(name, step * direction) -
                       weighted_sum(name, -step * direction)) / (2 * step))
  # A small one is not held to more than the rounding of the sum allows.
  size = np.abs(expected) + 0.1 * np.abs(expected).max()
  return [*np.abs(np.subtract(derivatives, expected)) / size]
