"""Builds Mesh TensorFlow graphs and models on virtual CPU devices."""

import os
from unittest import mock

import gin
import mesh_tensorflow as mtf
import mesh_tensorflow.optimize  # noqa: F401
import numpy as np
import pkg_resources
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import gin_files

LAYOUT = 'batch:batch,d_ff:model,heads:model,vocab:model'


def parse_gin(files, bindings=()):
  """Parses gin files as T5's main does: unknown names are errors."""
  gin.clear_config()
  import t5
  for folder in (
      pkg_resources.resource_filename('mesh_tensorflow.transformer', 'gin'),
      os.path.join(os.path.dirname(t5.__file__), 'models', 'gin'),
      gin_files.gin_folder()):
    gin.add_config_file_search_path(folder)
  gin.parse_config_files_and_bindings(
      ['defaults.gin', *files], list(bindings), finalize_config=False)


def lower(graph, mesh, mesh_shape='', layout=LAYOUT):
  """Lowers an mtf graph onto as many CPU devices as the mesh has."""
  mesh_shape = mtf.convert_to_shape(mesh_shape)
  devices = [f'cpu:{i}' for i in range(mesh_shape.size)]
  mesh_impl = mtf.placement_mesh_impl.PlacementMeshImpl(
      mesh_shape, mtf.convert_to_layout_rules(layout), devices)
  return mtf.Lowering(graph, {mesh: mesh_impl})


def session(devices=1):
  """A TensorFlow session with so many virtual CPU devices."""
  return tf.Session(config=tf.ConfigProto(
      device_count={'CPU': devices}, intra_op_parallelism_threads=2))


def run_op(fn, arrays, mesh_shape='', layout=LAYOUT):
  """Runs an mtf function of named arrays, and its gradients.

  Args:
    fn: a function of mtf Tensors that returns one.
    arrays: a list of (NumPy array, list of Dimensions).
    mesh_shape: a string such as 'batch:2;model:2'.
    layout: a string of layout rules.

  Returns:
    (y, the gradients of sum(y * cos(index)) for the float arrays, lowering)
  """
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    inputs = [
        mtf.import_tf_tensor(mesh, tf.constant(array), mtf.Shape(dims))
        for array, dims in arrays]
    y = fn(*inputs)
    # A weight that tells every element from every other.
    weights = mtf.import_tf_tensor(
        mesh, tf.constant(output_weights(y.shape.to_integer_list), tf.float32),
        y.shape)
    loss = mtf.reduce_sum(mtf.cast(y, tf.float32) * weights)
    floats = [t for t in inputs if t.dtype.is_floating]
    grads = mtf.gradients([loss], floats)
    lowering = lower(graph, mesh, mesh_shape, layout)
    fetched = [tf.cast(lowering.export_to_tf_tensor(t), tf.float32)
               for t in [y, *grads]]
    with session(mtf.convert_to_shape(mesh_shape).size) as sess:
      y, *grads = sess.run(fetched)
  return y, grads, lowering


def output_weights(shape):
  """The weights by which run_op sums up y."""
  return np.cos(np.arange(np.prod(shape)).reshape(shape)).astype('float32')


def counters(lowering):
  """The lowering's counters, each added up."""
  total = {}
  for name, value in lowering.counters:
    total[name] = total.get(name, 0) + value
  return total


TINY = ['d_model = 16', 'd_ff = 32', 'num_heads = 4', 'd_kv = 4']
VOCABULARY = 50


def count_parameters(model_gin, vocabulary):
  """Builds the training graph of a model; returns its number of weights."""
  parse_gin([model_gin])
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    model = transformer.make_bitransformer(vocabulary, vocabulary)
    shape = mtf.Shape([mtf.Dimension('batch', 1), mtf.Dimension('length', 8)])
    ids = mtf.ones(mesh, shape, tf.int32)
    model.call_simple(ids, ids, compute_loss=True)
  return sum(v.size for v in graph.trainable_variables)


class Model:
  """An encoder-decoder of gin files, in a graph of its own.

  Use as a context manager: mtf tensors are made from arrays by `tensor`, and
  `run` lowers and evaluates them with the same weights every time.
  """

  def __init__(self, files, bindings=(), mesh_shape='', layout=LAYOUT,
               variable_dtype=None):
    parse_gin(files, [*TINY, *bindings])
    self.mesh_shape, self.layout = mesh_shape, layout
    self.variable_dtype = variable_dtype or mtf.VariableDType(tf.float32)

  def __enter__(self):
    self._tf_graph = tf.Graph()
    self._context = self._tf_graph.as_default()
    self._context.__enter__()
    self.graph = mtf.Graph()
    self.mesh = mtf.Mesh(self.graph, 'mesh')
    self.bitransformer = transformer.make_bitransformer(VOCABULARY, VOCABULARY)
    self.encoder = self.bitransformer.encoder
    self.decoder = self.bitransformer.decoder
    return self

  def __exit__(self, *exception):
    self._context.__exit__(*exception)

  def tensor(self, array, *names):
    """An mtf Tensor, its dimensions named from the left."""
    array = np.asarray(array)
    shape = mtf.Shape([mtf.Dimension(name, size)
                       for name, size in zip(names, array.shape)])
    return mtf.import_tf_tensor(self.mesh, tf.constant(array), shape)

  def ids(self, array):
    """Token ids or segments, shape [batch, length]."""
    return self.tensor(np.asarray(array, np.int32), 'batch', 'length')

  def run(self, tensors, feed_weights=None):
    """Evaluates mtf tensors; weights are set by name from a fixed seed."""
    tensors = [mtf.anonymize(t) for t in tensors]
    self.lowering = lower(self.graph, self.mesh, self.mesh_shape, self.layout)
    fetched = [self.lowering.export_to_tf_tensor(t) for t in tensors]
    fetched = [tf.cast(t, tf.float32) if t.dtype == tf.bfloat16 else t
               for t in fetched]
    self.weights = feed_weights or {
        v.op.name: initial_weight(v.op.name, v.shape.as_list())
        for v in tf.global_variables()}
    with session(mtf.convert_to_shape(self.mesh_shape).size) as sess:
      load_weights(sess, self.weights)
      sess.run(self.lowering.copy_masters_to_slices())
      return sess.run(fetched)


def load_weights(sess, weights):
  """Initializes all variables, by name, in a single run of the session."""
  variables = tf.global_variables()
  sess.run([v.initializer for v in variables],
           {v.initializer.inputs[1]: weights[v.op.name] for v in variables})


def initial_weight(name, shape):
  """Values that depend on the name and the seed only."""
  seed = sum((i + 1) * ord(c) for i, c in enumerate(name)) % 2**31
  values = np.random.RandomState(seed).randn(*shape)
  if name.endswith('scale'):
    return (1 + 0.1 * values).astype('float32')
  scale = 1.0 if 'filters' in name else shape[0]**-0.5
  return (scale * values).astype('float32')


def decoder_context(m, batch, mode, position, **kwargs):
  """A Context as sample_autoregressive makes them."""
  length_dim = kwargs.pop('length_dim')
  length_range = mtf.range(m.mesh, length_dim, tf.int32)
  return transformer.Context(
      model=m.decoder, mesh=m.mesh, batch_dims=[mtf.Dimension('batch', batch)],
      length_dim=length_dim, variable_dtype=m.variable_dtype, mode=mode,
      position=position, new_states=[], write_priority=length_range,
      sequence_id=1, constant_states=kwargs.pop('constant_states', []),
      **kwargs)


def three_ways(m, ids, prefix_lengths, first_id):
  """Teacher-forced, first_part and incremental logits of the same ids.

  Args:
    m: a Model.
    ids: [batch, length] target ids, none of them 0.
    prefix_lengths: [batch], how many ids are given.
    first_id: the decoder's input at position 0.

  Returns:
    (teacher, first_part, steps): [batch, length, vocab] twice, then a list of
    [batch, vocab], the t-th for positions prefix_lengths + t.
  """
  batch, length = ids.shape
  inputs = np.concatenate([np.full((batch, 1), first_id), ids[:, :-1]], 1)
  length_dim = mtf.Dimension('length', length)
  source = m.ids(np.random.RandomState(7).randint(2, VOCABULARY, (batch, 5)))
  encoder_output, _ = m.encoder.call_simple(
      source, None, compute_loss=False, mode='eval',
      sequence_id=mtf.minimum(source, 1))
  encoder = dict(
      encoder_output=mtf.layers.rename_length_to_memory_length(encoder_output),
      encoder_sequence_id=mtf.layers.rename_length_to_memory_length(
          mtf.minimum(source, 1)))
  teacher, _ = m.decoder.call_simple(
      m.ids(inputs), m.ids(ids), compute_loss=False, mode='eval',
      sequence_id=m.ids(np.ones_like(ids)), **encoder)

  prefix_lengths = np.asarray(prefix_lengths)
  # The first step reads the last id of the prefix, so first_part sees the
  # inputs before position prefix_length.
  seen = np.arange(length)[None] < prefix_lengths[:, None]
  context = decoder_context(
      m, batch, 'first_part', mtf.range(m.mesh, length_dim, tf.int32),
      length_dim=length_dim, position_is_default=True,
      initial_position=m.tensor(prefix_lengths.astype('int32'), 'batch'),
      read_priority=mtf.range(m.mesh, length_dim, tf.int32),
      inputs=m.ids(ids * seen), **encoder)
  with tf.variable_scope(m.decoder.name, reuse=True):
    first_part = m.decoder._call_internal(context, m.ids(inputs * (
        np.arange(length)[None] <= prefix_lengths[:, None])))

  states, constant_states = context.new_states, context.constant_states
  steps = []
  for t in range(length - prefix_lengths.min()):
    positions = np.minimum(prefix_lengths + t, length - 1)
    position = m.tensor(positions.astype('int32'), 'batch')
    inputs_this_step = m.tensor(
        inputs[np.arange(batch), positions].astype('int32'), 'batch')
    context = decoder_context(
        m, batch, 'incremental', position, length_dim=length_dim, states=states,
        constant_states=constant_states, read_priority=position,
        inputs=inputs_this_step, **encoder)
    with tf.variable_scope(m.decoder.name, reuse=True):
      steps.append(m.decoder._call_internal(context, inputs_this_step))
    states = context.new_states
  return teacher, first_part, steps


def check_three_ways(m, ids, prefix_lengths, first_id=0, atol=1e-5):
  """Checks that three_ways agree; returns their greatest difference."""
  length = ids.shape[1]
  teacher, first_part, steps = three_ways(m, ids, prefix_lengths, first_id)
  teacher, first_part, *steps = m.run([teacher, first_part, *steps])
  worst = 0.0
  for b, prefix_length in enumerate(prefix_lengths):
    known = min(prefix_length + 1, length)
    worst = max(worst, np.abs(
        first_part[b, :known] - teacher[b, :known]).max())
    for t in range(length - prefix_length):
      worst = max(worst, np.abs(
          steps[t][b] - teacher[b, prefix_length + t]).max())
  assert np.abs(teacher).max() > 0.1, 'the logits say something'
  assert worst < atol
  return worst


def teacher_logits(m, source, targets):
  """Teacher-forced logits of targets without padding, an mtf Tensor."""
  return m.bitransformer.call_simple(
      m.ids(source), m.ids(targets), compute_loss=False, mode='eval',
      decoder_sequence_id=m.ids(np.ones_like(targets)))[0]


def check_greedy(make_model, source, decode_length, weights=None, **options):
  """Checks that decoded ids are the best ones of the training pass.

  Args:
    make_model: a function that returns a Model.
    source: [batch, length] ids.
    decode_length: an integer.
    weights: of the model by name; from the fixed seed when None.
    **options: of Bitransformer.decode.
  """
  with make_model() as m:
    decoded, = m.run([m.bitransformer.decode(
        m.ids(source), max_decode_length=decode_length, **options)], weights)
    weights = m.weights
  with make_model() as m:
    logits, = m.run([teacher_logits(m, source, decoded)], weights)
  for ids, best in zip(decoded, logits.argmax(-1)):
    known = _length_with_eos(ids)
    np.testing.assert_array_equal(best[:known], ids[:known])


def check_beams(make_model, source, weights=None, beam_size=4, alpha=0.6,
                decode_length=8):
  """Checks that beams have the scores that the training pass gives them."""
  found = []
  search = mtf.beam_search.beam_search

  def keep_found(*args, **kwargs):
    found.extend(search(*args, **kwargs))
    return found

  with make_model() as m, mock.patch.object(
      mtf.beam_search, 'beam_search', keep_found):
    m.bitransformer.decode(m.ids(source), beam_size=beam_size, alpha=alpha,
                           max_decode_length=decode_length)
    beams, scores = m.run(found, weights)
    weights = m.weights
  # [batch, beam, length] -> [batch * beam, length]
  beams, scores = beams.reshape(-1, beams.shape[-1]), scores.reshape(-1)
  with make_model() as m:
    logits, = m.run([teacher_logits(
        m, np.repeat(source, beam_size, axis=0), beams)], weights)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  checked = 0
  for ids, score, log_prob in zip(beams, scores, log_probs):
    if score <= -1e7:
      continue  # Fewer beams than beam_size were finished.
    checked += 1
    known = _length_with_eos(ids)
    expected = log_prob[np.arange(known), ids[:known]].sum()
    if 1 in ids:  # Only a finished beam is divided by its length penalty.
      expected /= ((5 + known) / 6)**alpha
    np.testing.assert_allclose(score, expected, atol=1e-4)
  assert checked >= len(source)


def _length_with_eos(ids):
  ends = np.flatnonzero(ids == 1)
  return ends[0] + 1 if ends.size else len(ids)
