"""What a checkpoint of Mesh TensorFlow computes, in plain values.

A model is described by the objects that its gin file makes, or, where it is
T5's own and has no gin file, by the shapes of its variables.
"""

import dataclasses
import re
import types

import mesh_tensorflow.transformer.transformer_layers as mtf_layers
import tensorflow.compat.v1 as tf

from mtf_conv import attention, layers
from mtf_conv.base import errors, gin_values
from mtf_conv.measure import models

LAYERS = ('LightConv', 'DynamicConv', 'DilatedConv', 'SelfAttention',
          'EncDecAttention', 'DenseReluDense')
_STACKS = ('encoder', 'decoder')

# Arguments of T5's attention, and the values under which it is what T5 has.
_ATTENTION = {
    'num_memory_heads': 0, 'shared_kv': False, 'attention_kwargs': {},
    'attention_func': None, 'keep_query_heads_dims': False,
    'fold_scaling_into_initializer': True, 'use_hyperprompt': False,
    'hyperprompt_length_encoder': None, 'hyperprompt_length_decoder': None}


@dataclasses.dataclass
class Description:
  """A model.

  Attributes:
    d_model: channels between the layers.
    blocks: a dict from 'encoder' and 'decoder' to lists of blocks, each a list
      of layers: dicts of 'layer', the name of the class, and of arguments as
      modeling_mtf_conv takes them.
    scopes: such a dict of the names that Mesh TensorFlow gives the layers, such
      as 'block_000/layer_000'.
    norms: the scopes of a layer's and of a stack's norm.
    norm_first: whether a norm is before its layer.
    max_positions: rows of a table of positions, or None.
    tied: whether the embedding gives the logits.
    dropout_rate: in training.
    epsilon: of the norms.
  """

  d_model: int
  blocks: dict
  scopes: dict
  norms: tuple = ('rms_norm', 'rms_norm')
  norm_first: bool = True
  max_positions: object = None
  tied: bool = True
  dropout_rate: float = 0.0
  epsilon: float = 1e-6

  def all_layers(self):
    """Yields the layers of both stacks."""
    for stack in _STACKS:
      for block in self.blocks[stack]:
        yield from block

  @property
  def is_t5(self):
    """Whether the stock classes of T5 compute this model."""
    values = {
        key: {layer[key] for layer in self.all_layers() if key in layer}
        for key in ('num_heads', 'd_kv', 'd_ff', 'num_buckets')}
    activations = {tuple(layer.get('activations', ('relu',)))
                   for layer in self.all_layers()}
    first = {'encoder': ['SelfAttention', 'DenseReluDense'],
             'decoder': ['SelfAttention', 'EncDecAttention', 'DenseReluDense']}
    return (
        self.norm_first and self.max_positions is None
        and all([layer['layer'] for layer in block] == first[stack]
                for stack in _STACKS for block in self.blocks[stack])
        and all(('num_buckets' in block[0]) == (i == 0)
                for stack in _STACKS
                for i, block in enumerate(self.blocks[stack]))
        and all(len(found) == 1 for found in values.values())
        and activations in ({('relu',)}, {('relu',), ('gelu', 'linear')})
        and not any(layer.get('use_bias') for layer in self.all_layers()))


def from_gin(source):
  """Describes the model of a gin file.

  Args:
    source: the file, such as an operative_config.gin.

  Returns:
    A Description; the norms' scopes are those of today's Mesh TensorFlow.

  Raises:
    errors.UserError: it is no model that PyTorch has a twin of.
  """
  try:
    models.parse([source], skip_unknown=True)
    model = models.make()
  except errors.UserError:
    raise
  except Exception as error:  # gin's, of any kind.
    raise errors.UserError(
        f'{source} describes no encoder-decoder: '
        f'{errors.user_message(error) or str(error).splitlines()[0]}'
    ) from error
  stacks = {'encoder': model.encoder, 'decoder': model.decoder}
  for stack, part in stacks.items():
    if part.name != stack or part.ensemble_dim:
      raise errors.UserError(
          f'{source}: shared or ensemble {stack}s have no PyTorch twin')
  described = {stack: _blocks(part, source) for stack, part in stacks.items()}
  return Description(
      d_model=model.encoder.model_dim.size,
      blocks={stack: blocks for stack, (blocks, _) in described.items()},
      scopes={stack: scopes for stack, (_, scopes) in described.items()},
      norm_first=_is_norm_first(stacks.values(), source),
      max_positions=_max_positions(stacks.values(), source),
      tied=model.decoder.shared_embedding_and_softmax_weights,
      dropout_rate=_dropout_rate(source),
      epsilon=(gin_values.bound('mtf_conv.norm.rms_norm.epsilon')
               or gin_values.bound('transformer.sublayer_rms_norm.epsilon'))
      or 1e-6)


def _dropout_rate(source):
  """The rate that the file binds, which models.parse leaves out."""
  with tf.io.gfile.GFile(source) as f:
    bound = re.findall(r'^dropout_rate = ([\d.e-]+)$', f.read(), re.M)
  return float(bound[-1]) if bound else 0.0


def _is_norm_first(parts, source):
  """Whether norms are before layers; T5 knows other sublayers, too."""
  ways = {
      ('rms_norm', 'call_layer', 'dropout', 'residual'): True,
      ('call_layer', 'rms_norm', 'dropout', 'residual'): False}
  found = {tuple(_sublayers(part.layer_stack._sublayers_per_layer))
           for part in parts}
  around = {(*_sublayers(part.layer_stack._sublayers_initial), '|',
             *_sublayers(part.layer_stack._sublayers_final)) for part in parts}
  if len(found) > 1 or not found <= {*ways} or around != {
      ('dropout', '|', 'rms_norm', 'dropout')}:
    raise errors.UserError(
        f'{source}: sublayers {sorted(found)} have no PyTorch twin: expected '
        f'one of {[*ways]}')
  return ways[found.pop()]


def _sublayers(functions):
  return [re.sub('^sublayer_(legacy_)?(final_)?', '', function.__name__)
          for function in functions]


def _max_positions(parts, source):
  if any(part.sinusoid_positional_embedding for part in parts):
    raise errors.UserError(
        f'{source}: sinusoid_positional_embedding has no PyTorch twin')
  sizes = {part.max_length_dim and part.max_length_dim.size for part in parts}
  if len(sizes) > 1:
    raise errors.UserError(
        f'{source}: tables of positions of different sizes have no PyTorch '
        'twin')
  return sizes.pop()


def _blocks(part, source):
  """The blocks of a stack, and the scopes of their layers."""
  blocks, scopes, last, seen = [], [], None, set()
  context = types.SimpleNamespace(model=part)
  for layer in part.layer_stack.layers:
    if not re.fullmatch(r'block_\d+/\w+', layer.name or ''):
      raise errors.UserError(
          f'{source}: layer {layer.name} is in no block: expected '
          'make_layer_stack.block_scope = True')
    block = layer.name.partition('/')[0]
    if block != last:
      last = block
      blocks.append([])
      scopes.append([])
    described = _layer(layer, context, source)
    if isinstance(layer, mtf_layers.SelfAttention) and (
        layer.relative_attention_type):
      if (layer.relative_attention_type == 'bias'
          or layer.num_heads not in seen):
        described['num_buckets'] = layer.relative_attention_num_buckets
      seen.add(layer.num_heads)
    blocks[-1].append(described)
    scopes[-1].append(layer.name)
  return blocks, scopes


def _layer(layer, context, source):
  name = type(layer).__name__
  described = {'layer': name}
  where = f'{source}: {context.model.name}/{layer.name}/{name}'
  if type(layer) in (layers.LightConv, layers.DynamicConv, layers.DilatedConv):
    return {**described, **layer.settings(context)}
  if type(layer) in (mtf_layers.SelfAttention, mtf_layers.EncDecAttention,
                     attention.SelfAttention, attention.EncDecAttention):
    unusual = [key for key, usual in _ATTENTION.items()
               if getattr(layer, key) != usual]
    if layer.relative_attention_type not in (
        (None, 'bias', 'bias_shared') if name == 'SelfAttention' else (None,)):
      unusual.append('relative_attention_type')
    if unusual:
      raise errors.UserError(
          f'{where}.{unusual[0]} (={getattr(layer, unusual[0])!r}) has no '
          'PyTorch twin')
    return {**described, 'num_heads': layer.num_heads,
            'd_kv': layer.key_value_size}
  if type(layer) is mtf_layers.DenseReluDense:
    activations = layer.activation
    if not isinstance(activations, list):
      activations = [activations]
    return {**described, 'd_ff': layer.hidden_size, 'use_bias': layer.use_bias,
            'activations': [a or 'linear' for a in activations]}
  remedy = ('; mtf_conv convert --to=lightconv or --to=dynamicconv comes first'
            if name == 'LocalConvAttnBlock' else errors.nearest(name, LAYERS))
  raise errors.UserError(
      f'{where} has no PyTorch twin: expected one of {", ".join(LAYERS)}'
      f'{remedy}')


def from_shapes(shapes, source):
  """Describes T5's own model by its variables.

  Args:
    shapes: a dict from names of variables to shapes.
    source: the checkpoint, for errors.

  Returns:
    A Description.

  Raises:
    errors.UserError: it is not T5's.
  """
  first = 'encoder/block_000/layer_000/SelfAttention'

  def shape(name):
    if name not in shapes:
      raise errors.UserError(
          f'{source} has no operative_config.gin and no variable {name}, so '
          'that its model is not known')
    return shapes[name]

  num_heads, num_buckets = shape(f'{first}/relative_attention_bias')
  d_model, inner = shape(f'{first}/q')
  attention = {'num_heads': num_heads, 'd_kv': inner // num_heads}
  dense = 'encoder/block_000/layer_001/DenseReluDense'
  gated = f'{dense}/wi_0/kernel' in shapes
  d_ff = shape(f'{dense}/{"wi_0" if gated else "wi"}/kernel')[1]
  feed_forward = {
      'layer': 'DenseReluDense', 'd_ff': d_ff, 'use_bias': False,
      'activations': ['gelu', 'linear'] if gated else ['relu']}
  blocks, scopes = {}, {}
  for stack in _STACKS:
    numbers = {int(m.group(1)) for m in
               (re.match(rf'{stack}/block_(\d+)/', name) for name in shapes)
               if m}
    names = ['SelfAttention', 'EncDecAttention'][:1 + (stack == 'decoder')]
    blocks[stack] = [
        [{'layer': name, **attention} for name in names] + [feed_forward]
        for _ in numbers]
    blocks[stack][0][0]['num_buckets'] = num_buckets
    scopes[stack] = t5_scopes(stack, len(numbers))
  return Description(
      d_model=d_model, blocks=blocks, scopes=scopes,
      tied='decoder/logits/kernel' not in shapes,
      dropout_rate=0.0 if gated else 0.1)


def t5_scopes(stack, num_layers):
  """Returns the scopes of T5's own layers; see Description."""
  return [[f'block_{block:03d}/layer_{layer:03d}'
           for layer in range({'encoder': 2, 'decoder': 3}[stack])]
          for block in range(num_layers)]
