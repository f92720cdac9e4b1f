"""Small models whose logits can be computed in every way that T5 has."""

import contextlib

import gin
import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv.measure import graph, models

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
      device_count={'CPU': devices}, intra_op_parallelism_threads=2,
      graph_options=graph.as_built()))


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
      A function of a feed_dict, of weights that take their place, and of a
      slice that chooses among the tensors, all optional, which returns the
      arrays of the tensors.
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

      def evaluate(feed_dict=None, weights=None, which=slice(None)):
        if weights:
          load(weights)
        return sess.run(fetched[which], feed_dict)

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


class _ThreeWays:
  """The graphs of one model that compute the same logits in three ways.

  Attributes:
    teacher: logits of the pass of training, [batch, length, vocab].
    first_part: logits of the pass over what is given, the same shape.
    given_states: what that pass leaves for the first step, a list of Tensors.
    step: logits of a step, [batch, vocab].
    step_states: what it leaves for the next one.
    position, inputs: placeholders of a step, [batch]: where it is, and the ids
      that it reads.
    states: placeholders of a step, as given_states.
  """

  def __init__(self, m, ids, inputs, prefix_lengths):
    """Builds the graphs.

    Args:
      m: a Model.
      ids: [batch, length] target ids.
      inputs: [batch, length] ids that the decoder reads.
      prefix_lengths: [batch], how many ids are given.
    """
    batch, length = ids.shape
    length_dim = mtf.Dimension('length', length)
    order = mtf.range(m.mesh, length_dim, tf.int32)
    source = m.ids(np.random.RandomState(7).randint(2, VOCABULARY, (batch, 5)))
    encoder_output, _ = m.encoder.call_simple(
        source, None, compute_loss=False, mode='eval',
        sequence_id=mtf.minimum(source, 1))
    to_memory = mtf.layers.rename_length_to_memory_length
    encoder = dict(encoder_output=to_memory(encoder_output),
                   encoder_sequence_id=to_memory(mtf.minimum(source, 1)))
    self.teacher, _ = m.decoder.call_simple(
        m.ids(inputs), m.ids(ids), compute_loss=False, mode='eval',
        sequence_id=m.ids(np.ones_like(ids)), **encoder)

    # The first step reads the last id of the prefix, so first_part sees the
    # inputs before position prefix_length.
    positions = np.arange(length)[None]
    seen = positions < prefix_lengths[:, None]
    context = decoder_context(
        m, batch, 'first_part', order, length_dim=length_dim,
        position_is_default=True, read_priority=order,
        initial_position=m.tensor(prefix_lengths.astype('int32'), 'batch'),
        inputs=m.ids(ids * seen), **encoder)
    with tf.variable_scope(m.decoder.name, reuse=True):
      self.first_part = m.decoder._call_internal(context, m.ids(
          inputs * (positions <= prefix_lengths[:, None])))
    self.given_states = context.new_states

    position, self.position = m.placeholder([batch], 'batch')
    inputs, self.inputs = m.placeholder([batch], 'batch')
    self.states = [
        tf.placeholder(state.dtype, state.shape.to_integer_list)
        for state in self.given_states]
    context = decoder_context(
        m, batch, 'incremental', position, length_dim=length_dim,
        states=[mtf.import_tf_tensor(m.mesh, placeholder, state.shape)
                for placeholder, state in zip(self.states, self.given_states)],
        constant_states=context.constant_states, read_priority=position,
        inputs=inputs, **encoder)
    with tf.variable_scope(m.decoder.name, reuse=True):
      self.step = m.decoder._call_internal(context, inputs)
    self.step_states = context.new_states


def three_way_differences(m, ids, prefix_lengths, first_ids=0):
  """Says how far first_part and steps are from the pass of training.

  Args:
    m: a Model.
    ids: [batch, length] target ids, none of them 0.
    prefix_lengths: [batch], how many ids are given.
    first_ids: the decoder's input at position 0, of all rows or of each.

  Returns:
    (the greatest difference of first_part for each row, that of the steps for
    each row, the greatest logit), all absolute.
  """
  length = ids.shape[1]
  prefix_lengths = np.asarray(prefix_lengths)
  inputs = np.insert(ids[:, :-1], 0, first_ids, axis=1)
  ways = _ThreeWays(m, ids, inputs, prefix_lengths)
  passes = [ways.teacher, ways.first_part, *ways.given_states]
  rows = np.arange(len(ids))
  with m.evaluating([*passes, ways.step, *ways.step_states]) as evaluate:
    teacher, first_part, *states = evaluate(which=slice(len(passes)))
    of_first_part = [
        np.abs(first_part[b, :n + 1] - teacher[b, :n + 1]).max()
        for b, n in enumerate(prefix_lengths)]
    of_steps = np.zeros(len(ids))
    for t in range(length - prefix_lengths.min()):
      positions = np.minimum(prefix_lengths + t, length - 1)
      logits, *states = evaluate({
          ways.position: positions, ways.inputs: inputs[rows, positions],
          **dict(zip(ways.states, states))}, which=slice(len(passes), None))
      differences = np.abs(logits - teacher[rows, positions]).max(-1)
      of_steps = np.where(prefix_lengths + t < length,
                          np.maximum(of_steps, differences), of_steps)
  return np.array(of_first_part), of_steps, np.abs(teacher).max()


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
