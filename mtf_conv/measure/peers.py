"""The same computations in PyTorch and JAX, where these are installed."""


from mtf_conv.measure import graph


def convolutions(x, filters, dy, offsets) -> dict[str, graph.Candidate]:
  """Returns the candidates for the convolution alone, by name.

  Args:
    x: [batch, length, groups, channels of a group].
    filters: [groups, taps], or with batch and length first.
    dy: the gradient of y.
    offsets: one per tap.
  """
  return {}
