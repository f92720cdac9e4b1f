"""T5's norm, as one operation with its own gradient.

For an input x of d channels and a learned scale,

    r      = (sum_c x[c]^2 / d + epsilon)^-1/2
    y[c]   = r x[c] scale[c]
    dx[c]  = r (dy[c] scale[c] - x[c] r^2 sum_c(dy[c] x[c] scale[c]) / d)
    dscale = sum over positions of r x dy

T5 multiplies, sums and broadcasts in a dozen operations, each of which passes
over a tensor of the size of x.
"""

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import conv_lowerings
from mtf_conv.base import mesh


@gin.configurable(module='mtf_conv.norm')
def rms_norm(x, layer_stack, context, epsilon=1e-6, stock=None):
  """T5's sublayer_rms_norm; for gin: LayerStack.sublayers_per_layer and others.

  Args:
    x: a Tensor, shape [rows..., d_model].
    layer_stack: a transformer.LayerStack.
    context: a transformer.Context.
    epsilon: what is added to the mean of squares.
    stock: whether to compute it as T5 does; None for where XLA compiles, as on
      every TPU: it makes one of many operations by itself.

  Returns:
    A Tensor of the shape and dtype of x.
  """
  model = context.model
  if model.ensemble_dims or (
      conv_lowerings.in_xla() if stock is None else stock):
    return transformer.sublayer_rms_norm(x, layer_stack, context, epsilon)
  with tf.variable_scope('rms_norm'):
    scale = mtf.get_variable(
        context.mesh, 'scale', mtf.Shape([model.model_dim]),
        initializer=tf.ones_initializer(), dtype=context.variable_dtype)
  return RmsNormOperation(x, scale, epsilon).outputs[0]


class RmsNormOperation(mtf.Operation):
  """Normalises the last dimension.

  Its outputs are y, of the shape and dtype of x, and r, a float32 Tensor
  without that dimension, which the gradient reads.
  """

  def __init__(self, x, scale, epsilon):
    """Makes the operation.

    Args:
      x: a Tensor, shape [rows..., d_model].
      scale: a Tensor, shape [d_model].
      epsilon: a float.

    Raises:
      ValueError: scale is not of the last dimension of x.
    """
    super().__init__([x, scale], name='rms_norm')
    *rows, self.model_dim = x.shape.dims
    if scale.shape.dims != [self.model_dim]:
      raise ValueError(
          f'scale {scale.shape} must have the last dimension of x {x.shape}')
    self._epsilon = epsilon
    self._outputs = [mtf.Tensor(self, x.shape, x.dtype, index=0),
                     mtf.Tensor(self, mtf.Shape(rows), tf.float32, index=1)]

  def gradient(self, grad_ys):
    """Returns the gradients of x and scale."""
    return RmsNormGradOperation(self, grad_ys[0]).outputs

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    mesh_impl = lowering.mesh_impl(self)
    x, scale = (lowering.tensors[t] for t in self.inputs)
    y, r = self.outputs
    squares = self.summed(lowering, mesh_impl.slicewise(
        lambda x: tf.reduce_sum(tf.square(tf.cast(x, tf.float32)), -1), x))
    inverse = mesh_impl.slicewise(lambda squares: tf.math.rsqrt(
        squares / self.model_dim.size + self._epsilon), squares)
    lowering.set_tensor_lowering(r, inverse)
    lowering.set_tensor_lowering(y, mesh_impl.slicewise(
        lambda x, scale, r: tf.cast(
            tf.cast(x, tf.float32) * r[..., None] * tf.cast(scale, tf.float32),
            x.dtype), x, scale, inverse))

  def summed(self, lowering, sums):
    """Adds up numbers of each position over the parts of d_model."""
    mesh_impl = lowering.mesh_impl(self)
    axis = mesh_impl.tensor_dimension_to_mesh_axis(self.model_dim)
    if axis is None:
      return sums
    lowering.add_counter(f'allreduce/{[axis]}/rms_norm',
                         mesh_impl.laid_out_size(self.outputs[1].shape))
    return mesh_impl.allreduce(sums, [axis], 'SUM')


class RmsNormGradOperation(mtf.Operation):
  """From dy: the gradients of an RmsNormOperation for x and for scale."""

  def __init__(self, forward, dy):
    x, scale = forward.inputs
    super().__init__([dy, x, scale, forward.outputs[1]], name='rms_norm_grad')
    self._forward = forward
    self._outputs = [mtf.Tensor(self, x.shape, x.dtype, index=0),
                     mtf.Tensor(self, scale.shape, scale.dtype, index=1)]

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    mesh_impl = lowering.mesh_impl(self)
    dy, x, scale, r = (lowering.tensors[t] for t in self.inputs)
    dx, dscale = self.outputs
    dots, dscales = mesh_impl.slicewise(_sums, dy, x, scale, r)
    lowering.set_tensor_lowering(dx, mesh_impl.slicewise(
        self._dx, dy, x, scale, r, self._forward.summed(lowering, dots)))
    lowering.set_tensor_lowering(dscale, mesh.summed(
        lowering, dscales, mesh.axes_of(lowering, self.inputs[3]), dscale,
        'rms_norm'))

  def _dx(self, dy, x, scale, r, dots):
    size = self._forward.model_dim.size
    dy, wide, scale = (tf.cast(t, tf.float32) for t in (dy, x, scale))
    return tf.cast(dy * scale * r[..., None] - wide * (
        r * r * r * dots / size)[..., None], x.dtype)


def _sums(dy, x, scale, r):
  """Returns sum(dy x scale) of each position, and the gradient of scale."""
  products = tf.reshape(tf.cast(dy, tf.float32) * tf.cast(x, tf.float32),
                        [-1, *scale.shape.as_list()])
  return (tf.reshape(tf.linalg.matvec(products, tf.cast(scale, tf.float32)),
                     r.shape),
          tf.cast(tf.linalg.matvec(
              products, tf.reshape(r, [-1]), transpose_a=True), scale.dtype))
