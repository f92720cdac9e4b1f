"""Equations 1 to 3 of the paper in plain NumPy, one position at a time."""

import numpy as np


def offsets(filter_size, dilation_rate=1, causal=False):
  """Equation 1: tap j = 1..k reads position i + j - ceil((k + 1) / 2)."""
  result = []
  for j in range(1, filter_size + 1):
    if causal:
      result.append((j - filter_size) * dilation_rate)
    else:
      result.append(
          int(j - np.ceil((filter_size + 1) / 2)) * dilation_rate)
  return result


def local_conv(x, filters, offsets, segments=None):
  """y[b,i,h,c] = sum_j w[(b,i,)h,j] x[b,i+o_j,h,c], in float64.

  Args:
    x: [batch, length, heads, d_kv].
    filters: [batch, length, heads, taps], or without the first two.
    offsets: one integer per tap.
    segments: None or [batch, length]; 0 is padding.

  Returns:
    An array of the shape of x.
  """
  x = np.asarray(x, np.float64)
  filters = np.asarray(filters, np.float64)
  if filters.ndim == 2:
    filters = np.broadcast_to(filters, x.shape[:2] + filters.shape)
  y = np.zeros_like(x)
  batch, length = x.shape[:2]
  for b in range(batch):
    for i in range(length):
      for tap, offset in enumerate(offsets):
        j = i + offset
        if not 0 <= j < length:
          continue
        if segments is not None and not (
            segments[b, i] == segments[b, j] != 0):
          continue
        y[b, i] += filters[b, i, :, tap, None] * x[b, j]
  return y


def local_conv_gradients(x, filters, offsets, dy, segments=None):
  """The gradients of sum(y * dy) for x and filters, tap by tap."""
  x = np.asarray(x, np.float64)
  dynamic = np.asarray(filters, np.float64)
  if dynamic.ndim == 2:
    dynamic = np.broadcast_to(dynamic, x.shape[:2] + dynamic.shape)
  dx = np.zeros_like(x)
  dfilters = np.zeros(dynamic.shape)
  for b in range(x.shape[0]):
    for i in range(x.shape[1]):
      for tap, offset in enumerate(offsets):
        j = i + offset
        if not 0 <= j < x.shape[1]:
          continue
        if segments is not None and not (
            segments[b, i] == segments[b, j] != 0):
          continue
        dx[b, j] += dynamic[b, i, :, tap, None] * dy[b, i]
        dfilters[b, i, :, tap] += (dy[b, i] * x[b, j]).sum(-1)
  if np.ndim(filters) == 2:
    dfilters = dfilters.sum((0, 1))
  return dx, dfilters


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))
