"""The same computations in PyTorch and JAX, where these are installed.

Functions take and return channels last, as a model has them. Filters are of odd
size and centred.
"""

import functools

import numpy as np

from mtf_conv.base import machine
from mtf_conv.measure import graph
from mtf_conv.measure.speed import block_candidates

LIBRARIES = ('torch', 'jax')


def make_convolutions(x, filters, dy) -> dict[str, graph.Candidate]:
  """Returns ways to do a convolution, by name.

  Args:
    x: [batch, length, groups, channels of a group].
    filters: [groups, taps], or with batch and length first.
    dy: the gradient of y.
  """
  return {name: make(conv, [x, filters], dy)
          for name, make, conv in _convolutions(filters.ndim == 4)}


def make_blocks(x, weights, dy) -> dict[str, tuple]:
  """Returns blocks of static filters, by name.

  Args:
    x: [batch, length, d_model].
    weights: a dict of the weights of each kind: dense, conv and attention; see
      blocks.py.
    dy: the gradient of y.

  Returns:
    For each name (Candidate, its kind, the names of its inputs after x).
  """
  found = {}

  def add(name, make, kind, fn):
    names = list(weights[kind])
    found[name] = (make(lambda x, *w: fn(x, **dict(zip(names, w))),
                        [x, *weights[kind].values()], dy), kind, names)

  for library, make, softmax, sigmoid in _libraries():
    add(f'{library} three products', make, 'dense', _dense)
    for name, _, conv in _convolutions(dynamic=False):
      if name.startswith(library):
        add(name, make, 'conv',
            functools.partial(_gated, conv, softmax, sigmoid))
  if machine.has('torch'):
    add('torch attention', _torch_candidate, 'attention', _torch_attention)
  return found


def _libraries():
  if machine.has('torch'):
    import torch
    yield ('torch', _torch_candidate, lambda w: torch.softmax(w, -1),
           torch.sigmoid)
  if machine.has('jax'):
    import jax
    yield 'jax', _jax_candidate, jax.nn.softmax, jax.nn.sigmoid


def _dense(x, wi, ws, wo):
  return x @ wi @ wo + x @ ws


def _gated(conv, softmax, sigmoid, x, wi, ws, wo, filters):
  x1 = (x @ wi) * sigmoid(x @ ws)
  x2 = conv(x1.reshape(*x.shape[:2], filters.shape[0], -1), softmax(filters))
  return x2.reshape(x1.shape) @ wo


def _convolutions(dynamic):
  """Yields (name, function that makes a candidate, convolution)."""
  if machine.has('torch'):
    if not dynamic:
      yield 'torch depthwise', _torch_candidate, _torch_depthwise
    yield 'torch unfold', _torch_candidate, _torch_unfold
    yield 'torch band', _torch_candidate, _torch_band
  if machine.has('jax') and not dynamic:
    yield 'jax depthwise', _jax_candidate, _jax_depthwise


def _torch_candidate(fn, inputs, dy):
  import torch
  torch.set_num_threads(machine.cores())
  inputs = [torch.tensor(a, requires_grad=True) for a in inputs]
  dy = torch.tensor(dy)

  def forward():
    with torch.no_grad():
      return fn(*inputs)

  def backward():
    y = fn(*inputs)
    return (y, *torch.autograd.grad(y, inputs, dy))

  return graph.Candidate(
      forward, backward, lambda: [t.detach().numpy() for t in backward()])


def _torch_depthwise(x, filters):
  from torch.nn import functional
  channels = x.shape[2] * x.shape[3]
  weights = filters.repeat_interleave(x.shape[3], 0)[:, None]
  y = functional.conv1d(
      x.reshape(*x.shape[:2], channels).transpose(1, 2), weights,
      padding=filters.shape[1] // 2, groups=channels)
  return y.transpose(1, 2).reshape(x.shape)


def _torch_padded(x, taps):
  from torch.nn import functional
  return functional.pad(x, (0, 0, 0, 0, taps // 2, taps // 2))


def _torch_unfold(x, filters):
  taps = filters.shape[-1]
  windows = _torch_padded(x, taps).unfold(1, taps, 1)
  return (windows @ filters[..., None])[..., 0]


def _torch_band(x, filters):
  """One product with a matrix whose row i holds the filter from place i on."""
  taps, length = filters.shape[-1], x.shape[1]
  if filters.dim() == 4:
    filters = filters.transpose(1, 2)  # [batch, groups, length, taps]
  else:
    filters = filters[:, None].expand(-1, length, -1)
  window = length + taps - 1
  bands = filters.new_zeros(*filters.shape[:-1], window)
  *strides, row, column = bands.stride()
  bands.as_strided(filters.shape, (*strides, row + column, column)).copy_(
      filters)
  padded = _torch_padded(x, taps).transpose(1, 2)
  return (bands @ padded).transpose(1, 2)


def _torch_attention(x, q, k, v, o):
  from torch.nn import functional

  def split(x):
    return x.unflatten(-1, (-1, block_candidates.D_KV)).transpose(1, 2)

  # T5's attention does not scale: undo what this does.
  scale = block_candidates.D_KV**0.5
  y = functional.scaled_dot_product_attention(
      split(x @ q) * scale, split(x @ k), split(x @ v))
  return y.transpose(1, 2).flatten(2) @ o


def _jax_candidate(fn, inputs, dy):
  import jax
  inputs, dy = [jax.numpy.asarray(a) for a in inputs], jax.numpy.asarray(dy)
  value = jax.jit(fn)

  @jax.jit
  def value_and_gradients(dy, *inputs):
    y, pull_back = jax.vjp(fn, *inputs)
    return y, *pull_back(dy)

  def forward():
    return jax.block_until_ready(value(*inputs))

  def backward():
    return jax.block_until_ready(value_and_gradients(dy, *inputs))

  return graph.Candidate(
      forward, backward, lambda: [np.asarray(t) for t in backward()])


def _jax_depthwise(x, filters):
  import jax
  channels, half = x.shape[2] * x.shape[3], filters.shape[1] // 2
  weights = jax.numpy.repeat(filters.T, x.shape[3], 1)[:, None]
  return jax.lax.conv_general_dilated(
      x.reshape(*x.shape[:2], channels), weights, [1], [(half, half)],
      dimension_numbers=('NWC', 'WIO', 'NWC'),
      feature_group_count=channels).reshape(x.shape)
