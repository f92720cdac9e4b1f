"""Small models whose logits can be computed in every way that T5 has."""

import contextlib

import gin
import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv.measure import models

LAYOUT = 'batch:batch,d_ff:model,heads:model,vocab:model'
VOCABULARY = 50


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


class Model:
  """An encoder-decoder of gin files, in a graph of its own.

  Use as a context manager: mtf tensors are made from arrays by `tensor`, and
  `run` lowers and evaluates them with the same weights every time.

  Attributes:
    bitransformer: the transformer.Bitransformer; encoder, decoder: its parts.
    graph, mesh: of mtf.
    weights: the arrays of all variables, by name, after `run`.
    lowering: the mtf.Lowering of `run`.
  """

  def __init__(self, files, bindings=(), mesh_shape='', layout=LAYOUT,
               variable_dtype=None, mixer=None):
    """Parses the gin files.

    Args:
      files: gin files.
      bindings: that come after them.
      mesh_shape: such as 'batch:2;model:2', each part a virtual CPU device.
      layout: layout rules.
      variable_dtype: an mtf.VariableDType; float32 when None.
      mixer: a class or a function that makes a layer, as the macro 'mixer' of
        models/mixer.gin; None for that of the gin files.
    """
    models.parse(files, bindings)
    if mixer is not None:
      gin.bind_parameter('mixer/macro.value', mixer)
    self.mesh_shape, self.layout = mesh_shape, layout
    self.variable_dtype = variable_dtype or mtf.VariableDType(tf.float32)

  def __enter__(self):
    with contextlib.ExitStack() as stack:
      stack.enter_context(tf.Graph().as_default())
      self.graph = mtf.Graph()
      self.mesh = mtf.Mesh(self.graph, 'mesh')
      self.bitransformer = models.make(VOCABULARY)
      self.encoder = self.bitransformer.encoder
      self.decoder = self.bitransformer.decoder
      self._context = stack.pop_all()  # Left by __exit__, or now by an error.
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

  def placeholder(self, shape, *names):
    """Ids that are given to each evaluation: (mtf Tensor, its placeholder)."""
    placeholder = tf.placeholder(tf.int32, shape)
    return mtf.import_tf_tensor(self.mesh, placeholder, mtf.Shape([
        mtf.Dimension(name, size) for name, size in zip(names, shape)
    ])), placeholder

  def run(self, tensors, weights=None):
    """Evaluates mtf tensors; weights are set by name from a fixed seed."""
    with self.evaluating(tensors, weights) as evaluate:
      return evaluate()

  @contextlib.contextmanager
  def evaluating(self, tensors, weights=None):
    """Opens a session.

    Args:
      tensors: mtf tensors.
      weights: arrays by the names of variables; initial_weight's when None.

    Yields:
      A function of a feed_dict and of weights that takes their place, both
      optional, which returns the arrays of the tensors.
    """
    tensors = [mtf.anonymize(t) for t in tensors]
    self.lowering = lower(self.graph, self.mesh, self.mesh_shape, self.layout)
    fetched = [self.lowering.export_to_tf_tensor(t) for t in tensors]
    fetched = [tf.cast(t, tf.float32) if t.dtype == tf.bfloat16 else t
               for t in fetched]
    self.weights = weights or {
        v.op.name: initial_weight(v.op.name, v.shape.as_list())
        for v in tf.global_variables()}
    copy = self.lowering.copy_masters_to_slices()
    with session(mtf.convert_to_shape(self.mesh_shape).size) as sess:
      def load(weights):
        load_weights(sess, weights)
        sess.run(copy)

      def evaluate(feed_dict=None, weights=None):
        if weights:
          load(weights)
        return sess.run(fetched, feed_dict)

      load(self.weights)
      yield evaluate


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
  scale = 1.0 if 'filters' in name or not shape else shape[0]**-0.5
  return np.float32(scale * values)


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


def three_ways(m, ids, prefix_lengths, first_ids=0):
  """Teacher-forced, first_part and incremental logits of the same ids.

  Args:
    m: a Model.
    ids: [batch, length] target ids, none of them 0.
    prefix_lengths: [batch], how many ids are given.
    first_ids: the decoder's input at position 0, of all rows or of each.

  Returns:
    (teacher, first_part, steps): [batch, length, vocab] twice, then a list of
    [batch, vocab], the t-th for positions prefix_lengths + t.
  """
  batch, length = ids.shape
  inputs = np.insert(ids[:, :-1], 0, first_ids, axis=1)
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


def three_way_differences(m, ids, prefix_lengths, first_ids=0):
  """Says how far first_part and steps are from the pass of training.

  Args:
    m: see three_ways.
    ids: see three_ways.
    prefix_lengths: see three_ways.
    first_ids: see three_ways.

  Returns:
    (the greatest difference of first_part for each row, that of the steps for
    each row, the greatest logit), all absolute.
  """
  length = ids.shape[1]
  teacher, first_part, steps = three_ways(m, ids, prefix_lengths, first_ids)
  teacher, first_part, *steps = m.run([teacher, first_part, *steps])
  of_first_part, of_steps = [], []
  for b, prefix_length in enumerate(prefix_lengths):
    known = min(prefix_length + 1, length)
    of_first_part.append(
        np.abs(first_part[b, :known] - teacher[b, :known]).max())
    of_steps.append(np.max(
        [np.abs(steps[t][b] - teacher[b, prefix_length + t])
         for t in range(length - prefix_length)]))
  return np.array(of_first_part), np.array(of_steps), np.abs(teacher).max()


def teacher_logits(m, source, targets):
  """Teacher-forced logits of targets without padding, an mtf Tensor."""
  return m.bitransformer.call_simple(
      m.ids(source), m.ids(targets), compute_loss=False, mode='eval',
      decoder_sequence_id=m.ids(np.ones_like(targets)))[0]


def beam_difference(make_model, source, weights=None, beam_size=4, alpha=0.6,
                    decode_length=8):
  """Says how far the scores of beams are from those of the training pass.

  Args:
    make_model: a function that returns a Model.
    source: [batch, length] ids.
    weights: of the model by name; from the fixed seed when None.
    beam_size: an integer.
    alpha: of the length penalty.
    decode_length: an integer.

  Returns:
    (the greatest difference, the greatest score, both absolute; how many
    beams there were).
  """
  with make_model() as m, _kept_beams() as found:
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
  differences, found_scores = [], []
  for ids, score, log_prob in zip(beams, scores, log_probs):
    if score <= -1e7:
      continue  # Fewer beams than beam_size were finished.
    known = length_with_eos(ids)
    expected = log_prob[np.arange(known), ids[:known]].sum()
    if 1 in ids:  # Only a finished beam is divided by its length penalty.
      expected /= ((5 + known) / 6)**alpha
    differences.append(abs(score - expected))
    found_scores.append(abs(score))
  return np.max(differences), np.max(found_scores), len(differences)


@contextlib.contextmanager
def _kept_beams():
  """Yields a list, which is given all beams and their scores that are built.

  Of what beam search finds, Mesh TensorFlow's decode returns the best ids only.
  """
  found = []
  search = mtf.beam_search.beam_search

  def keep(*args, **kwargs):
    found.extend(search(*args, **kwargs))
    return found

  mtf.beam_search.beam_search = keep
  try:
    yield found
  finally:
    mtf.beam_search.beam_search = search


def length_with_eos(ids):
  """Returns how many ids there are up to eos."""
  ends = np.flatnonzero(ids == 1)
  return ends[0] + 1 if ends.size else len(ids)
