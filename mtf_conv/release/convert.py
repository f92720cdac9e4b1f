"""Rewrites a checkpoint of the release for LightConv or DynamicConv.

With channels in the order of their filters, and in the notation of
mtf_conv.released, a block of the release is one of mtf_conv.layers with

    W_O <- W_P W_O        b_O <- (b_conv W_P + b_P) W_O + b_O

and with everything else as it was. A dynamic filter for every channel is a
DynamicConv of as many heads, of one channel each, as there are channels.
"""

import os

import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv import released
from mtf_conv.base import errors, files
from mtf_conv.model_dir import checkpoints
from mtf_conv.release import released_checkpoint

# The layer that a convolution becomes, by --to.
_LAYERS = {'lightweight_conv': ('lightconv', 'LightConv'),
           'dynamic_conv': ('dynamicconv', 'DynamicConv')}


def convert(path, out_dir, to, num_heads=None):
  """Writes a checkpoint, and model.gin with which it is used.

  Args:
    path: a folder, for its last checkpoint, or the prefix of a checkpoint.
    out_dir: a folder of this machine that does not exist yet, or is empty.
    to: 'lightconv' or 'dynamicconv', as is the checkpoint.
    num_heads: heads of the attention between encoder and decoder; None: see
      released_checkpoint.Checkpoint.

  Returns:
    A list of strings: what could not be kept, and what was assumed.

  Raises:
    errors.UserError: nothing has been written, because out_dir holds
      something or cannot be written, or because path holds no complete
      checkpoint of this kind.
  """
  checkpoint = released_checkpoint.Checkpoint(path, num_heads)
  model, layer = _LAYERS[checkpoint.attention_type]
  if to != model:
    raise errors.UserError(
        f'{checkpoint.prefix} holds {checkpoint.attention_type}, which is not '
        f'--to={to}: expected --to={model}')
  notes = _notes(checkpoint)
  name = f'model.ckpt-{checkpoint.step}'
  try:
    with files.new_folder(out_dir) as folder:
      checkpoint.read_all()
      checkpoints.write(str(folder / name), _converted(checkpoint, layer))
      (folder / 'model.gin').write_text(
          _model_gin(checkpoint, model, layer, notes))
  except (OSError, tf.errors.OpError) as e:
    raise errors.UserError(
        f'{out_dir} cannot be written: {str(e).splitlines()[0]}') from e
  return notes


def _notes(checkpoint):
  """What the user has to know of the new checkpoint, in sentences."""
  windows = [f'{offsets[0]}..{offsets[-1]} in the {stack}'
             for stack, offsets in checkpoint.windows().items()]
  notes = [
      'Not kept: where an input id is 0, the convolutions of the release read '
      'nothing, and these read that position. It is the first position of '
      'every decoder: its logits, and those that depend on it, differ.',
      'Not kept: the slots of the optimizer.',
      f'Assumed: windows of {" and ".join(windows)}, and no activation after '
      'the convolution, as in the release; shapes tell neither.']
  if checkpoint.read('shared/embedding').dtype != np.float32:
    notes.append('Not kept: float32; the folded products are rounded to the '
                 "checkpoint's bfloat16.")
  return notes


def _converted(checkpoint, layer):
  """Yields dicts of new variables by name, a block at a time."""
  rest = {name: checkpoint.read(name) for name in checkpoint.shapes()
          if '/LocalConvAttnBlock/' not in name}
  yield {**rest, 'global_step': np.int64(checkpoint.step)}
  for stack, scope in checkpoint.blocks():
    new_scope = scope.replace('LocalConvAttnBlock', layer)
    variables = {name: checkpoint.read(f'{scope}/{name}')
                 for name in checkpoint.block_shapes(stack)}
    dtype = variables[released.VARIABLES['wi']].dtype
    yield {f'{new_scope}/{name}': value.astype(dtype) for name, value in
           _converted_block(checkpoint, stack, variables).items()}


def _converted_block(checkpoint, stack, variables):
  """One block: release's variables by their names to ours by ours."""
  old = {name: variables[release_name].astype(np.float64)
         for name, release_name in released.VARIABLES.items()
         if release_name in variables}
  # Channel c takes filter c modulo num_filters: bring equal ones together.
  order = np.argsort(
      np.arange(checkpoint.output_size) % checkpoint.num_filters,
      kind='stable')
  new = {name: old[name][..., order] for name in
         ('wi', 'ws', 'wi_bias', 'ws_bias') if name in old}
  wo = old['wo']
  if checkpoint.use_bias:
    bias = old['conv_bias']
    if checkpoint.pointwise:
      bias = bias @ old['pointwise'] + old['pointwise_bias']
    new['wo_bias'] = bias @ wo + old['wo_bias']
  if checkpoint.pointwise:
    wo = old['pointwise'] @ wo
  new['wo'] = wo[order]

  name = released.FILTERS[checkpoint.attention_type]

  def taps(kind):
    """One variable per tap to one whose last dimension are the taps."""
    return np.stack(
        [variables[f'{name}_{tap}/{kind}'].astype(np.float64)
         for tap in range(checkpoint.filter_sizes[stack])], axis=-1)

  if checkpoint.attention_type == 'lightweight_conv':
    new['filters'] = taps('kernel')
  else:
    new['wq'] = taps('kernel')[order].reshape(checkpoint.output_size, -1)
    if checkpoint.use_bias:
      new['wq_bias'] = taps('bias').reshape(-1)
  return new


def _model_gin(checkpoint, model, layer, notes):
  num_filters = checkpoint.num_filters
  arguments = {
      # Of the convolutions alone: the attention has heads of its own.
      'num_heads': num_filters,
      'd_kv': checkpoint.output_size // num_filters,
      'num_filters': num_filters,
      'use_bias': checkpoint.use_bias,
  }
  name = f'mtf_conv.layers.{layer}'
  return '\n'.join([
      f'# {os.path.basename(checkpoint.prefix)} of the release, converted to '
      f'{layer}.',
      *(f'# {note}' for note in notes), '',
      "include 'models/bi_bert_base.gin'",
      f"include 'models/{model}.gin'", '',
      *checkpoint.size_bindings(), '',
      *(f'{name}.{argument} = {value}'
        for argument, value in arguments.items()),
      *(f'{stack}/{name}.filter_size = {size}'
        for stack, size in checkpoint.filter_sizes.items()), ''])
