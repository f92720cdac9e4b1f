"""Reads from the shapes in a checkpoint of the release which model it holds.

The README of the release gives sizes that its gin files do not, so nothing is
taken from either but the sides of the windows.
"""

import math
import os
import re

import tensorflow.compat.v1 as tf

from mtf_conv import conv, released
from mtf_conv.base import errors

# What TensorFlow raises for a checkpoint that is cut short or damaged.
_UNREADABLE = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


class Checkpoint:
  """What the shapes in a checkpoint of the release say of its model.

  Attributes:
    prefix: its path without '.index'.
    step: the step that it was written at.
    attention_type: 'lightweight_conv' or 'dynamic_conv'.
    num_layers: blocks in the encoder, and as many in the decoder.
    d_model: the width of the model.
    d_ff: the width inside the feed-forward layers.
    num_heads: heads of the encoder-decoder attention.
    d_kv: channels of each of them.
    output_size: the width inside the convolutions.
    num_filters: distinct filters of a convolution.
    filter_sizes: a dict of the number of taps in 'encoder' and 'decoder'.
    pointwise: whether a product over all channels follows the convolution.
    use_bias: whether products and convolutions have biases.
    vocabulary_size: rows of the embedding, a multiple of 128.
    max_length: rows of the table of positions; None when there is no table.
  """

  def __init__(self, path, num_heads=None):
    """Reads the shapes.

    Args:
      path: a folder, for its last checkpoint, or the prefix of a checkpoint.
      num_heads: shapes do not tell it from d_kv. None: as the file
        operative_config.gin beside the checkpoint says; d_model / 64, as in
        T5's small, base and large, where there is no such file.

    Raises:
      errors.UserError: there is no checkpoint, or it is not one of these
        blocks: a variable is missing, unknown or of another shape.
    """
    self.prefix, self._reader = _open(path)
    self._shapes = {
        name: tuple(shape) for name, shape in
        self._reader.get_variable_to_shape_map().items()
        if not re.search(r'(_slot_\w+|/adam_[mv])$|^global_step$', name)}
    suffix = re.search(r'-(\d+)$', self.prefix)
    self.step = int(self.read('global_step')
                    if self._reader.has_tensor('global_step')
                    else suffix.group(1) if suffix else 0)
    self._read_sizes()
    self.num_heads = (
        self._find_num_heads() if num_heads is None else num_heads)
    _, attention_width = self._dims(
        'decoder/block_000/layer_001/EncDecAttention/q')
    if self.num_heads < 1 or attention_width % self.num_heads:
      raise errors.UserError(
          f'num_heads (={self.num_heads}) must divide the attention width '
          f'(={attention_width}) of {self.prefix}')
    self.d_kv = attention_width // self.num_heads
    self._check()

  def read(self, name):
    """Returns a variable of the checkpoint as a NumPy array."""
    try:
      return self._reader.get_tensor(name)
    except _UNREADABLE as e:
      raise errors.UserError(
          f'{self.prefix} cannot be read at {name}: expected a complete '
          f'checkpoint ({_first_line(e)})') from e

  def read_all(self):
    """Raises UserError if any part of the checkpoint cannot be read."""
    for name in self._reader.get_variable_to_shape_map():
      self.read(name)

  def blocks(self):
    """Yields the stack and the scope of every block's convolution."""
    for stack in self.filter_sizes:
      for block in range(self.num_layers):
        yield stack, f'{stack}/block_{block:03d}/layer_000/LocalConvAttnBlock'

  def block_shapes(self, stack):
    """Returns the shapes of a block's variables by their names in it."""
    inner = self.output_size
    shapes = {'wi': (self.d_model, inner), 'ws': (self.d_model, inner),
              'wo': (inner, self.d_model)}
    if self.pointwise:
      shapes['pointwise'] = (inner, inner)
    if self.use_bias:
      shapes.update({f'{name}_bias': shape[1:]
                     for name, shape in shapes.items()})
      shapes['conv_bias'] = (inner,)
    shapes = {released.VARIABLES[name]: shape for name, shape in shapes.items()}
    dynamic = self.attention_type == 'dynamic_conv'
    for tap in range(self.filter_sizes[stack]):
      name = f'{released.FILTERS[self.attention_type]}_{tap}'
      shapes[f'{name}/kernel'] = (inner,) * dynamic + (self.num_filters,)
      if dynamic and self.use_bias:
        shapes[f'{name}/bias'] = (self.num_filters,)
    return shapes

  def shapes(self):
    """Returns the shapes of all variables of the model by their names."""
    d_model, d_ff = self.d_model, self.d_ff
    attention = self.num_heads * self.d_kv
    products = {
        'EncDecAttention': {
            **dict.fromkeys('qkv', (d_model, attention)),
            'o': (attention, d_model)},
        'DenseReluDense': {
            'wi/kernel': (d_model, d_ff), 'wo/kernel': (d_ff, d_model)}}
    layers_after = {'encoder': ['DenseReluDense'],
                    'decoder': ['EncDecAttention', 'DenseReluDense']}
    shapes = {'shared/embedding': (self.vocabulary_size, d_model)}
    if self.max_length:
      shapes['shared/positional_embedding'] = (self.max_length, d_model)
    for stack, scope in self.blocks():
      block = scope.rpartition('/layer_000/')[0]
      shapes[f'{stack}/rms_norm/scale'] = (d_model,)
      shapes[f'{block}/layer_000/rms_norm/scale'] = (d_model,)
      for name, shape in self.block_shapes(stack).items():
        shapes[f'{scope}/{name}'] = shape
      for number, layer in enumerate(layers_after[stack], 1):
        scope = f'{block}/layer_{number:03d}'
        shapes[f'{scope}/rms_norm/scale'] = (d_model,)
        for name, shape in products[layer].items():
          shapes[f'{scope}/{layer}/{name}'] = shape
    return shapes

  def windows(self):
    """Returns the offsets that the taps of each stack read.

    Shapes do not tell them: as in the release's files, they are centred in the
    encoder ([-k/2, k/2 - 1] for an even k) and causal in the decoder.
    """
    return {'encoder': conv.centred_offsets(self.filter_sizes['encoder']),
            'decoder': conv.causal_offsets(self.filter_sizes['decoder'])}

  def size_bindings(self):
    """Returns the lines of gin that any model of these sizes needs."""
    lines = [f'{name} = {getattr(self, name)}' for name in
             ('d_model', 'd_ff', 'num_layers', 'num_heads', 'd_kv')]
    if self.max_length:
      return lines + [f'Unitransformer.max_length = {self.max_length}']
    return lines + ['Unitransformer.positional_embedding = False']

  def _shape(self, name, expected='it'):
    if name not in self._shapes:
      raise errors.UserError(
          f'{self.prefix} has no variable {name}: expected {expected}')
    return self._shapes[name]

  def _dims(self, name, rank=2):
    shape = self._shape(name)
    if len(shape) != rank or 0 in shape:
      raise errors.UserError(
          f'{name} in {self.prefix} has shape {list(shape)}: expected '
          f'{rank} dimensions')
    return shape

  def _read_sizes(self):
    scope = 'encoder/block_000/layer_000/LocalConvAttnBlock'
    types = [attention_type for attention_type, name in released.FILTERS.items()
             if f'{scope}/{name}_0/kernel' in self._shapes]
    if not types:
      raise errors.UserError(
          f'{self.prefix} has no filters in {scope}: expected '
          f'{" or ".join(released.FILTERS.values())}_0/kernel')
    self.attention_type = types[0]
    self.vocabulary_size, self.d_model = self._dims('shared/embedding')
    positions = 'shared/positional_embedding'
    self.max_length = (
        self._dims(positions)[0] if positions in self._shapes else None)
    _, self.d_ff = self._dims(
        'encoder/block_000/layer_001/DenseReluDense/wi/kernel')
    _, self.output_size = self._dims(f'{scope}/{released.VARIABLES["wi"]}')
    self.pointwise, self.use_bias = (
        f'{scope}/{released.VARIABLES[name]}' in self._shapes
        for name in ('pointwise', 'wi_bias'))
    taps = released.FILTERS[self.attention_type]
    *_, self.num_filters = self._dims(
        f'{scope}/{taps}_0/kernel',
        2 if self.attention_type == 'dynamic_conv' else 1)
    if self.output_size % self.num_filters:
      raise errors.UserError(
          f'{scope}/{taps}_0/kernel in {self.prefix} has {self.num_filters} '
          f'filters: expected a number that divides {self.output_size}')
    self.filter_sizes = {
        stack: self._count(scope.replace('encoder', stack) +
                           fr'/{taps}_(\d+)/kernel')
        for stack in ('encoder', 'decoder')}
    self.num_layers = self._count(r'encoder/block_(\d+)/.*')

  def _count(self, pattern):
    """How many numbers, 0 and on, stand in the names of this pattern."""
    matches = (re.fullmatch(pattern, name) for name in self._shapes)
    return max((int(m.group(1)) + 1 for m in matches if m), default=0)

  def _find_num_heads(self):
    config = f'{self.prefix.rpartition("/")[0] or "."}/operative_config.gin'
    if tf.io.gfile.exists(config):
      with tf.io.gfile.GFile(config) as f:
        stated = re.search(r'^num_heads = (\d+)$', f.read(), re.MULTILINE)
      if stated:
        return int(stated.group(1))
    if self.d_model % 64:
      raise errors.UserError(
          f'd_model (={self.d_model}) of {self.prefix} is not a multiple of '
          '64, so that num_heads cannot be guessed: expected --num_heads')
    return self.d_model // 64

  def _check(self):
    expected = self.shapes()
    for name, shape in expected.items():
      found = self._shape(name, f'one of shape {list(shape)}')
      if found != shape:
        raise errors.UserError(
            f'{name} in {self.prefix} has shape {list(found)}: expected '
            f'{list(shape)}')
    for name in self._shapes:
      if name not in expected:
        raise errors.UserError(
            f'{self.prefix} has a variable {name}, which '
            f'LocalConvAttnBlock models do not have'
            f'{errors.nearest(name, expected)}')


def gin_bindings(path, num_heads=None):
  """Writes the model gin with which a checkpoint of the release loads.

  Args:
    path: see Checkpoint.
    num_heads: see Checkpoint.

  Returns:
    The text of a gin file.

  Raises:
    errors.UserError: see Checkpoint.
  """
  checkpoint = Checkpoint(path, num_heads)
  block = 'mtf_conv.released.LocalConvAttnBlock'
  arguments = {
      name: getattr(checkpoint, name) for name in
      ('attention_type', 'output_size', 'pointwise', 'use_bias', 'num_filters')}
  lines = [
      f'# The model of {os.path.basename(checkpoint.prefix)}, from its shapes.',
      f'# {sum(map(math.prod, checkpoint.shapes().values())):,} parameters, of '
      f'a vocabulary of {checkpoint.vocabulary_size}.',
      '', "include 'models/released/block.gin'", '',
      *checkpoint.size_bindings(), '',
      *(f'{block}.{name} = {value!r}' for name, value in arguments.items())]
  for stack, window in checkpoint.windows().items():
    lines += [f'{stack}/{block}.min_relative_pos = {window[0]}',
              f'{stack}/{block}.max_relative_pos = {window[-1]}']
  return '\n'.join(lines) + '\n'


def _open(path):
  """Returns the prefix of a checkpoint, and a reader of it."""
  path = str(path).rstrip('/')
  prefix = path
  if tf.io.gfile.isdir(path):
    prefix = tf.train.latest_checkpoint(path)
  if not prefix or not tf.io.gfile.exists(f'{prefix}.index'):
    raise errors.UserError(
        f'{path} holds no checkpoint: expected a folder with a file named '
        'checkpoint, or a path such as DIR/model.ckpt-1000')
  try:
    return prefix, tf.train.load_checkpoint(prefix)
  except _UNREADABLE as e:
    raise errors.UserError(
        f'{prefix} cannot be read: expected a complete checkpoint '
        f'({_first_line(e)})') from e


def _first_line(error):
  return str(error).partition('\n')[0]
