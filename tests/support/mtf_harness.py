"""Builds Mesh TensorFlow graphs and models on virtual CPU devices."""

import os

import gin
import mesh_tensorflow as mtf
import mesh_tensorflow.optimize  # noqa: F401
import numpy as np
import pkg_resources
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv.base import gin_files, gin_values
from mtf_conv.testing import model
from mtf_conv.testing.model import (  # noqa: F401
    LAYOUT,
    VOCABULARY,
    beam_difference,
    decoder_context,
    initial_weight,
    length_with_eos,
    load_weights,
    lower,
    session,
    teacher_logits,
    three_way_differences,
)

TINY = ['d_model = 16', 'd_ff = 32', 'num_heads = 4', 'd_kv = 4']


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


def count_parameters(model_gin, vocabulary):
  """Counts the weights of a model; of equal blocks, one and two are built."""
  parse_gin([model_gin])
  num_layers = gin_values.macro('num_layers')
  if gin_values.macro('filter_sizes') or num_layers <= 2:
    return _count_parameters(model_gin, vocabulary)
  one, two = (_count_parameters(model_gin, vocabulary, [f'num_layers = {n}'])
              for n in (1, 2))
  return one + (num_layers - 1) * (two - one)


def _count_parameters(model_gin, vocabulary, bindings=()):
  parse_gin([model_gin], bindings)
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    model = transformer.make_bitransformer(vocabulary, vocabulary)
    shape = mtf.Shape([mtf.Dimension('batch', 1), mtf.Dimension('length', 8)])
    ids = mtf.ones(mesh, shape, tf.int32)
    model.call_simple(ids, ids, compute_loss=True)
  return sum(v.size for v in graph.trainable_variables)


class Model(model.Model):
  """A model.Model of the size TINY."""

  def __init__(self, files, bindings=(), *args, **kwargs):
    super().__init__(files, [*TINY, *bindings], *args, **kwargs)


def check_three_ways(m, ids, prefix_lengths, first_id=0, atol=1e-5):
  """Checks that three_ways agree; returns their greatest difference."""
  first_part, steps, largest = three_way_differences(
      m, ids, prefix_lengths, first_id)
  assert largest > 0.1, 'the logits say something'
  worst = np.max([first_part, steps])
  assert worst < atol
  return worst


def check_beams(make_model, source, **options):
  """Checks that beams have the scores that the training pass gives them."""
  difference, _, beams = beam_difference(make_model, source, **options)
  assert beams >= len(source)
  assert difference < 1e-4


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
    known = length_with_eos(ids)
    np.testing.assert_array_equal(best[:known], ids[:known])
