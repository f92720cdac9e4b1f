"""What is timed has to equal this: plain NumPy in float64, by the formulas.

Arrays are [batch, length, channels]. Filters are [groups, taps], or [batch,
length, groups, taps] for a dynamic convolution; the groups are of contiguous
channels and of equal size. Gradients are those of sum(y * dy).
"""

import numpy as np

from mtf_conv.base import errors


def local_conv(x, filters, offsets, segments=None):
  """Equations 1 to 3 of the paper, tap by tap."""
  grouped = _grouped(x, filters)
  y = np.zeros(grouped.shape)
  for tap, offset in enumerate(offsets):
    y += filters[..., tap, None] * _shift(grouped, offset, segments)
  return y.reshape(x.shape)


def local_conv_gradients(x, filters, offsets, dy, segments=None):
  """Returns the gradients for x and for filters."""
  grouped, dy = _grouped(x, filters), _grouped(dy, filters)
  dx = np.zeros(grouped.shape)
  dfilters = np.zeros(filters.shape)
  for tap, offset in enumerate(offsets):
    # Position i reads i + offset: its gradient goes back there.
    dx += _shift(filters[..., tap, None] * dy, -offset, segments)
    products = np.einsum(
        'blgc,blgc->blg', _shift(grouped, offset, segments), dy)
    dfilters[..., tap] = products if filters.ndim == 4 else products.sum((0, 1))
  return dx.reshape(x.shape), dfilters


def _grouped(x, filters):
  return np.asarray(x, np.float64).reshape(
      *x.shape[:2], filters.shape[-2], -1)


def _shift(x, offset, segments=None):
  """Returns x at i + offset, zero where a tap at i does not read that."""
  length = x.shape[1]
  source = np.arange(length) + offset
  inside = (source >= 0) & (source < length)
  source = source.clip(0, length - 1)
  reads = np.broadcast_to(inside, x.shape[:2])
  if segments is not None:
    reads = inside & (segments[:, source] == segments) & (segments != 0)
  return x[:, source] * reads[:, :, None, None]


def softmax(x):
  """Over the last axis."""
  exp = np.exp(x - x.max(-1, keepdims=True))
  return exp / exp.sum(-1, keepdims=True)


def softmax_gradient(y, dy):
  """The gradient for x of y = softmax(x)."""
  return y * (dy - (y * dy).sum(-1, keepdims=True))


def sigmoid(x):
  """The logistic function."""
  return 1 / (1 + np.exp(-x))


def gated_conv(x, weights, offsets, dy, segments=None):
  """The block of section 3.2.1, and its gradients.

  Args:
    x: [batch, length, d_model].
    weights: a dict of wi, ws and wo; of filters [groups, taps] or, for a
      dynamic convolution, of wq [channels, groups * taps], both before their
      softmax; pointwise, if there is such a product.
    offsets: one per tap.
    dy: the gradient of y.
    segments: None, or [batch, length], 0 for padding.

  Returns:
    (y, a dict of gradients for x, for each of weights and for <name>_bias, the
    biases that would be added to the products and, conv_bias, to the
    convolution).
  """
  w = {name: weight.astype(np.float64) for name, weight in weights.items()}
  gate = sigmoid(x @ w['ws'])
  ungated = x @ w['wi']
  x1 = ungated * gate
  dynamic = 'wq' in w
  filters = softmax(
      (x1 @ w['wq']).reshape(*x.shape[:2], -1, len(offsets)) if dynamic
      else w['filters'])
  x2 = local_conv(x1, filters, offsets, segments)
  x3 = x2 @ w['pointwise'] if 'pointwise' in w else x2

  gradients = {}

  def back(name, inputs, dy):
    """Records the gradients of a product; returns that for its inputs."""
    gradients[name] = product_gradient(inputs, dy)
    gradients[f'{name}_bias'] = dy.sum((0, 1))
    return dy @ w[name].T

  dx2 = back('wo', x3, dy)
  if 'pointwise' in w:
    dx2 = back('pointwise', x2, dx2)
  gradients['conv_bias'] = dx2.sum((0, 1))
  dx1, dfilters = local_conv_gradients(x1, filters, offsets, dx2, segments)
  dfilters = softmax_gradient(filters, dfilters)
  if dynamic:
    dx1 += back('wq', x1, dfilters.reshape(*x.shape[:2], -1))
  else:
    gradients['filters'] = dfilters
  gradients['x'] = back('wi', x, dx1 * gate) + back(
      'ws', x, dx1 * ungated * gate * (1 - gate))
  return x3 @ w['wo'], gradients


def attention(x, weights, num_heads, dy, segments=None, causal=False):
  """Self-attention without scaling or bias, as T5 has it, and its gradients.

  Args:
    x: [batch, length, d_model].
    weights: a dict of q, k, v and o.
    num_heads: how many heads there are.
    dy: the gradient of y.
    segments: None, or [batch, length]: positions see their own segment.
    causal: whether positions see themselves and earlier ones only.

  Returns:
    (y, a dict of gradients for x and for each of weights).
  """
  w = {name: weight.astype(np.float64) for name, weight in weights.items()}

  def split(x):  # [batch, length, channels] -> [batch, heads, length, d_kv]
    return np.moveaxis(x.reshape(*x.shape[:2], num_heads, -1), 2, 1)

  def join(x):
    x = np.moveaxis(x, 1, 2)
    return x.reshape(*x.shape[:2], -1)

  q, k, v = (split(x @ w[name]) for name in 'qkv')
  logits = q @ k.swapaxes(-1, -2)
  if segments is not None:
    logits -= 1e9 * (segments[:, None, :, None] != segments[:, None, None])
  if causal:
    logits -= 1e9 * ~np.tri(x.shape[1], dtype=bool)
  p = softmax(logits)
  o = join(p @ v)

  do = split(dy @ w['o'].T)
  dlogits = softmax_gradient(p, do @ v.swapaxes(-1, -2))
  dinputs = {'q': join(dlogits @ k), 'k': join(dlogits.swapaxes(-1, -2) @ q),
             'v': join(p.swapaxes(-1, -2) @ do)}
  gradients = {name: product_gradient(x, d) for name, d in dinputs.items()}
  gradients['o'] = product_gradient(o, dy)
  gradients['x'] = sum(d @ w[name].T for name, d in dinputs.items())
  return o @ w['o'], gradients


def product_gradient(x, dy):
  """The gradient for w of x @ w."""
  return x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


def check(what, found, expected, tolerance=2e-5):
  """Refuses a result that is not the expected one.

  Args:
    what: what was computed, for the message.
    found: a list of arrays in float32.
    expected: a list of arrays in float64.
    tolerance: the greatest difference, relative to the greatest expected value
      of the array: float32 after sums over many positions.

  Raises:
    errors.UserError: some array differs; what follows would be the time of
      another computation.
  """
  for number, (f, e) in enumerate(zip(found, expected)):
    worst = np.abs(np.asarray(f, np.float64) - e).max() / np.abs(e).max()
    if not worst <= tolerance:
      which = 'value' if number == 0 else f'gradient {number}'
      raise errors.UserError(
          f'{what}: the {which} differs from the plain reference by {worst:.1e}'
          f' of its greatest entry (allowed {tolerance:.0e}); not timed')
