"""Whole models: their names, their gin files, their graph of training."""

import logging
import os
import re

import gin
import mesh_tensorflow as mtf
import mesh_tensorflow.optimize  # noqa: F401
import mesh_tensorflow.transformer
import numpy as np
import t5.models
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer
from t5.data import preprocessors

import mtf_conv.attention
import mtf_conv.embedding
import mtf_conv.loss
import mtf_conv.norm
import mtf_conv.optimizer
from mtf_conv.base import errors, gin_files

# Of 4 + 4 layers, between tiny and small: what two cores can do. Bindings for
# a mini model.
BENCH_SIZE = ('d_model = 256', 'd_ff = 1024', 'd_kv = 64')

VOCABULARY = 32100  # T5's 32,000 pieces and 100 sentinels.

_SIZED = re.compile(r'models/(released/)?[^/.]+\.[^/.]+\.gin')

# Bindings for what is counted: TPUs multiply with one-hot tensors where other
# machines look up.
AS_ON_TPU = ('mtf_conv.embedding.LookupEmbedding.one_hot = True',
             'mtf_conv.loss.cross_entropy.one_hot = True',
             'mtf_conv.attention.attention.stock = True',
             'mtf_conv.norm.rms_norm.stock = True',
             'mtf_conv.optimizer.Adafactor.stock = True')


def resolve(name, sizes=('base',)) -> list[str]:
  """Finds models by name.

  Args:
    name: lightconv.base, released/lconv.base, models/lightconv.base.gin, the
      path of a gin file, or lightconv for all of sizes.
    sizes: of a model that is named without one.

  Returns:
    Paths for `parse`.

  Raises:
    errors.UserError: there is no such model.
  """
  if os.path.isfile(name):
    return [name]
  name = name.removeprefix('models/').removesuffix('.gin')
  known = {path.removeprefix('models/').removesuffix('.gin'): path
           for path in gin_files.paths() if _SIZED.fullmatch(path)}
  if name in known:
    return [known[name]]
  found = [known[f'{name}.{size}'] for size in sizes
           if f'{name}.{size}' in known]
  if not found:
    raise errors.UserError(
        f'unknown model {name!r}: mtf_conv list models names them all'
        + errors.nearest(name, [*known, *gin_files.model_names()]))
  return found


def title(path) -> str:
  """Returns what a model is called: lightconv.base."""
  return os.path.basename(path)[:-len('.gin')]


def kind(path) -> str:
  """Returns what a model is called without its size: lightconv."""
  return title(path).split('.')[0]


def parse(paths, bindings=(), skip_unknown=False):
  """Parses gin files as T5's main does: unknown names are errors.

  Args:
    paths: gin files, relative to the folders of T5 and of this package.
    bindings: what comes after them.
    skip_unknown: whether they are left out instead, as of a file that another
      program has written.
  """
  gin.clear_config()
  for module in (mesh_tensorflow.transformer, t5.models):
    gin.add_config_file_search_path(
        os.path.join(os.path.dirname(module.__file__), 'gin'))
  for folder in gin_files.folders():
    gin.add_config_file_search_path(folder)
  # gin logs an error for every folder that it does not find a file in.
  root = logging.getLogger()
  root.addFilter(_is_no_search)
  try:
    gin.parse_config_files_and_bindings(
        ['defaults.gin', *paths], ['dropout_rate = 0.0', *bindings],
        finalize_config=False, skip_unknown=skip_unknown)
  finally:
    root.removeFilter(_is_no_search)


def _is_no_search(record):
  return not record.getMessage().startswith('Path not found')


def context(mesh, dims, autoregressive, variable_dtype=None,
            **options) -> transformer.Context:
  """Returns what a single layer is called with.

  Args:
    mesh: the mtf.Mesh.
    dims: batch, length and d_model.
    autoregressive: whether the layer is a decoder's.
    variable_dtype: an mtf.VariableDType; None for float32.
    **options: of transformer.Context.
  """
  batch, length, model = dims
  stack = transformer.Unitransformer(
      transformer.LayerStack([]), d_model=model.size, input_vocab_size=1,
      output_vocab_size=1, autoregressive=autoregressive,
      max_length=length.size, positional_embedding=False)
  return transformer.Context(
      stack, mesh, [batch], length,
      variable_dtype or mtf.VariableDType(tf.float32), **options)


def targets_length(inputs_length) -> int:
  """Returns how long targets are: T5's rule, 3 tokens a span, 15% of them."""
  return preprocessors.random_spans_helper(
      inputs_length, noise_density=0.15, mean_noise_span_length=3.0,
      extra_tokens_per_span_inputs=1, extra_tokens_per_span_targets=1)[1]


def make(vocabulary=VOCABULARY) -> transformer.Bitransformer:
  """Returns the model of what was parsed."""
  return transformer.make_bitransformer(vocabulary, vocabulary)


def training(builder, batch, inputs, targets, vocabulary=VOCABULARY,
             variable_dtype=None):
  """Builds a step of training, of the model that was parsed.

  The batch is as T5 packs it, with one example a row.

  Args:
    builder: a graph.Builder.
    batch: how many rows there are.
    inputs: the length of inputs.
    targets: the length of targets.
    vocabulary: how many ids there are.
    variable_dtype: an mtf.VariableDType; None for float32.

  Returns:
    (loss, gradients for the trainable variables), mtf Tensors.
  """
  rng = np.random.RandomState(0)

  def features(length):
    dims = [mtf.Dimension('batch', batch), mtf.Dimension('length', length)]
    shape = (batch, length)
    return (builder.tensor(array.astype('int32'), dims) for array in (
        rng.randint(2, vocabulary, shape), np.ones(shape),
        np.broadcast_to(np.arange(length), shape)))

  ids, sequence_id, position = features(inputs)
  target_ids, target_sequence_id, target_position = features(targets)
  _, loss = make(vocabulary).call_simple(
      ids, target_ids, compute_loss=True, mode='train',
      variable_dtype=variable_dtype or mtf.VariableDType(tf.float32),
      encoder_sequence_id=sequence_id, decoder_sequence_id=target_sequence_id,
      encoder_position=position, decoder_position=target_position)
  return loss, mtf.gradients(
      [loss], [v.outputs[0] for v in builder.graph.trainable_variables])


def optimize(builder, gradients) -> list:
  """Returns the mtf Operations of T5's optimizer, Adafactor."""
  return mtf_conv.optimizer.Adafactor(learning_rate=1e-3).apply_grads(
      gradients, builder.graph.trainable_variables)
