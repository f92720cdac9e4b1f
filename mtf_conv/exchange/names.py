"""The names of weights in PyTorch and in Mesh TensorFlow.

A name in PyTorch is that of transformers' T5, with the class of a convolution
where T5 has SelfAttention:

    shared.weight                               shared/embedding
    encoder.block.0.layer.0.LightConv.wi.weight
                                      encoder/block_000/layer_000/LightConv/wi
    encoder.block.0.layer.0.layer_norm.weight
                                      encoder/block_000/layer_000/rms_norm/scale
    encoder.final_layer_norm.weight             encoder/rms_norm/scale
    lm_head.weight                              decoder/logits/kernel

A matrix is [out, in] in PyTorch and [in, out] in Mesh TensorFlow.
"""

import re

_WHOLE = {
    'shared.weight': ('shared/embedding', False),
    'positions.weight': ('shared/positional_embedding', False),
    'lm_head.weight': ('decoder/logits/kernel', True),
}


def of_variable(name, scopes, norms):
  """Finds the variable that a parameter is.

  Args:
    name: of a parameter in PyTorch.
    scopes: see Description.
    norms: see Description.

  Returns:
    (the variable's name in Mesh TensorFlow, whether it is transposed).
  """
  if name in _WHOLE:
    return _WHOLE[name]
  stack, _, rest = name.partition('.')
  if rest == 'final_layer_norm.weight':
    return f'{stack}/{norms[1]}/scale', False
  block, layer, rest = re.fullmatch(
      r'block\.(\d+)\.layer\.(\d+)\.(.+)', rest).groups()
  scope = f'{stack}/{scopes[stack][int(block)][int(layer)]}'
  if rest == 'layer_norm.weight':
    return f'{scope}/{norms[0]}/scale', False
  kind, _, rest = rest.partition('.')
  if rest == 'filters':
    return f'{scope}/{kind}/filters', False
  matrix, _, what = rest.rpartition('.')
  if kind == 'DenseReluDense':
    matrix += '/kernel' if what == 'weight' else '/bias'
  elif what == 'bias':
    matrix += '_bias'
  return f'{scope}/{kind}/{matrix}', what == 'weight'
