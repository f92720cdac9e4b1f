"""A trained model in a session: functions of batches, built when needed.

Mesh TensorFlow fixes all shapes when it builds a graph. So there is a graph for
each shape of a batch, all in one session and with the same weights, and
batches are padded to few shapes.
"""

import os
import re

import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer_layers, utils

from mtf_conv.base import errors, machine
from mtf_conv.measure import graph

_SHORTEST = 16


def pad(rows, length):
  """Makes one array of several.

  Args:
    rows: arrays of one dimension.
    length: the number of columns.

  Returns:
    An array [rows, length], 0 where a row has ended.
  """
  padded = np.zeros((len(rows), length), rows[0].dtype)
  for to, row in zip(padded, rows):
    to[:len(row)] = row
  return padded


class Engine:
  """The model that gin describes, with the weights of a checkpoint.

  It computes on one device, in float32.

  Attributes:
    d_model: the size of a state.
  """

  def __init__(self, trained):
    """Builds nothing yet.

    Args:
      trained: a trained.Trained, whose gin is the last that was parsed.
    """
    self._trained = trained
    self._tf_graph = tf.Graph()
    self._loaded = set()
    self._functions = {}
    cores = machine.cores()
    self._session = tf.Session(graph=self._tf_graph, config=tf.ConfigProto(
        intra_op_parallelism_threads=cores, inter_op_parallelism_threads=cores,
        graph_options=graph.as_built()))
    size = trained.vocabulary.vocab_size
    self._model = utils.build_model(
        input_vocab_size=size, output_vocab_size=size)
    self._table = _table(self._model.encoder)
    self.d_model = self._model.encoder.model_dim.size

  def bucket(self, length) -> int:
    """Returns the length to which one is padded: a power of two."""
    length = max(_SHORTEST, 1 << (length - 1).bit_length())
    return min(length, self._table or length)

  def check_length(self, length, place, remedy):
    """Refuses what is too long for the model, or for this machine.

    Args:
      length: in tokens.
      place: what the error begins with.
      remedy: what it ends with.

    Raises:
      errors.UserError: names both lengths.
    """
    if self._table and length > self._table:
      raise errors.UserError(
          f"{place}: {length:,} tokens, and the model's table of positions "
          f'ends at {self._table:,}: {remedy}')
    needed = self._bytes(self.bucket(length))
    if needed > _memory() / 2:
      raise errors.UserError(
          f'{place}: {length:,} tokens would take {needed / 1e9:,.0f} GB: '
          f'{remedy}')

  def _bytes(self, length):
    """About what the encoder's largest tensors take for one row."""
    layers = self._model.encoder.layer_stack.layers
    heads = max((layer.num_heads for layer in layers if isinstance(
        layer, transformer_layers.SelfAttention)), default=0)
    width = max((layer.hidden_size for layer in layers if isinstance(
        layer, transformer_layers.DenseReluDense)), default=0)
    return 4 * length * (
        2 * width + 8 * self._model.encoder.model_dim.size + 3 * heads * length)

  def function(self, build, arrays):
    """Builds a function of arrays of given shapes, or finds it built.

    Args:
      build: what makes mtf Tensors, as the functions of module decoding do, of
        a transformer.Bitransformer and mtf Tensors; the same object each time.
      arrays: a list of arrays [batch, length] of the shapes and dtypes.

    Returns:
      A function of such a list that returns a list of arrays; several threads
      may call it at once.

    Raises:
      errors.UserError: the checkpoint lacks variables of the model, has others,
        or of other shapes.
    """
    key = (build, *((array.shape, array.dtype.str) for array in arrays))
    if key not in self._functions:
      self._functions[key] = self._build(build, arrays)
    return self._functions[key]

  def _build(self, build, arrays):
    with self._tf_graph.as_default(), tf.variable_scope(
        '', reuse=tf.AUTO_REUSE):
      placeholders = [tf.placeholder(a.dtype, a.shape) for a in arrays]
      fetched = self.outputs(build, placeholders)
      self._load()
      run = self._session.make_callable(fetched, placeholders)
    return lambda arrays: run(*arrays)

  def outputs(self, build, tensors):
    """Adds a function to the graph that TensorFlow builds at this moment.

    Args:
      build: see function.
      tensors: a list of tf.Tensors of fixed shapes [batch, length].

    Returns:
      A list of tf.Tensors.
    """
    mtf_graph = mtf.Graph()
    mesh = mtf.Mesh(mtf_graph, 'mesh')
    made = [
        mtf.anonymize(t) for t in build(self._model, *(
            mtf.import_tf_tensor(mesh, tensor, mtf.Shape([
                mtf.Dimension(*dim)
                for dim in zip(('batch', 'length'), tensor.shape.as_list())]))
            for tensor in tensors))]
    # One device, and masters in float32: they are what is computed with.
    lowering = mtf.Lowering(mtf_graph, {mesh: graph.placement('', '')})
    return [lowering.export_to_tf_tensor(t) for t in made]

  def weights(self, build, arrays):
    """Returns the variables of a function, arrays by their names.

    Args:
      build: see function, as is what is raised.
      arrays: see function.
    """
    self.function(build, arrays)
    with self._tf_graph.as_default():
      found = {v.op.name: v for v in tf.global_variables()}
    return self._session.run(found)

  def _load(self):
    """Gives the variables that are new their values."""
    new = [v for v in tf.global_variables() if v.op.name not in self._loaded]
    if not new:
      return
    reader = tf.train.load_checkpoint(self._trained.checkpoint)
    found = reader.get_variable_to_shape_map()
    self._check({v.op.name: v.shape.as_list()
                 for v in tf.global_variables()}, found)
    for variable in new:  # One by one, in the memory of one.
      try:
        value = reader.get_tensor(variable.op.name)
      except tf.errors.OpError as error:
        raise errors.UserError(
            f'{self._trained.checkpoint}: {variable.op.name} cannot be read: '
            f'{error.message}') from error
      self._session.run(variable.initializer, {
          variable.initializer.inputs[1]: value.astype(np.float32)})
      self._loaded.add(variable.op.name)

  def _check(self, wanted, found):
    """Refuses a checkpoint of another model."""
    config = os.path.join(self._trained.model_dir, 'operative_config.gin')
    end = (f': {config} describes another model than {self._trained.checkpoint}'
           ' holds')
    for name in sorted(wanted):
      if name not in found:
        raise errors.UserError(
            f'{self._trained.checkpoint} has no variable {name}{end}')
      if found[name] != wanted[name]:
        raise errors.UserError(
            f'{self._trained.checkpoint}: {name} has the shape {found[name]}, '
            f'expected {wanted[name]}{end}')
    scopes = {name.split('/')[0] for name in wanted}
    for name in sorted(found):
      # The rest are the optimizer's, named after the variable they are of.
      if (re.match(r'\w+/(block|layer)_\d', name)
          and name.split('/')[0] in scopes and not any(
              name.startswith(known) for known in wanted)):
        raise errors.UserError(
            f'{self._trained.checkpoint} has a variable {name} that the model '
            f'lacks{end}')


def _table(encoder):
  """Returns how many positions a model knows, None if any."""
  if encoder.positional_embedding and not encoder.sinusoid_positional_embedding:
    return encoder.max_length_dim.size
  return None


def _memory():
  """Returns how many bytes of memory this machine has."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
