"""T5's Adafactor, in fewer passes over variables and gradients.

For a gradient G of two large dimensions, whose squares have the running means R
over columns and C over rows, and an update X = G r c with r = (R / mean R)^-1/2
and c = C^-1/2 (Shazeer and Stern, 2018, algorithm 4): the mean of X^2, by which
an update is clipped, is that of G^2 times c^2 and r^2, so that X need not be
made for it; and what scales the update is multiplied with r, not with X.
"""

import gin
import mesh_tensorflow as mtf
import mesh_tensorflow.optimize
import tensorflow.compat.v1 as tf

from mtf_conv import conv_lowerings


@gin.configurable(module='mtf_conv.optimizer')
class Adafactor(mesh_tensorflow.optimize.AdafactorOptimizer):
  """T5's AdafactorOptimizer: the same arguments, slots and updates to rounding.

  For gin: utils.run.optimizer. Arguments that are bound for
  optimize.AdafactorOptimizer hold for it as well.
  """

  def __init__(self, *args, stock=None, **kwargs):
    """Makes the optimizer.

    Args:
      *args: of T5's AdafactorOptimizer.
      stock: whether to compute it as T5 does; None for where XLA compiles, as
        on every TPU: it makes one of many operations by itself.
      **kwargs: of T5's AdafactorOptimizer.
    """
    super().__init__(*args, **kwargs)
    self._stock = conv_lowerings.in_xla() if stock is None else stock

  def apply_grad(self, grad, var):
    """Returns the mtf Operations that update a variable and its slots."""
    dims = grad is not None and self._factored_dims(var.shape)
    if not dims or self._stock or self._beta1 or self._stacked_dim_names or (
        self._clipping_threshold is None):
      return super().apply_grad(grad, var)
    row_dim, column_dim = dims
    grad = mtf.to_float(grad)
    rows, columns = (mtf.get_variable(
        var.mesh, f'{var.name}_slot_{name}', var.shape - dim,
        initializer=tf.zeros_initializer(), trainable=False)
                     for name, dim in (('vr', row_dim), ('vc', column_dim)))
    with tf.variable_scope(f'{var.name}/adafactor'):
      squares = mtf.square(grad)
      decay, mixed = self._decay_rate, 1.0 - self._decay_rate
      new_rows, new_columns = (
          slot * decay + (mtf.reduce_mean(
              squares, output_shape=slot.shape) + self._epsilon1) * mixed
          for slot in (rows, columns))
      row_factor = mtf.rsqrt(
          new_rows / mtf.reduce_mean(new_rows, reduced_dim=column_dim))
      column_factor = mtf.rsqrt(new_columns)
      mean = mtf.reduce_sum(mtf.square(row_factor) * mtf.einsum(
          [squares, mtf.square(column_factor)],
          output_shape=rows.shape)) * (1 / var.shape.size)
      clipping = mtf.maximum(1.0, mtf.sqrt(mean) / self._clipping_threshold)
      row_factor = row_factor / clipping * self._learning_rate
      if self._multiply_by_parameter_scale and not any(
          name in var.name for name in self._exclude_from_parameter_scale):
        row_factor *= self._parameter_scale(mtf.to_float(var.value))
      return [mtf.assign(rows, new_rows), mtf.assign(columns, new_columns),
              mtf.assign_sub(var, grad * row_factor * column_factor)]

  def _parameter_scale(self, var):
    if self._stock or self._stacked_dim_names:
      return super()._parameter_scale(var)
    squares = mtf.einsum([var, var], output_shape=[])
    return mtf.maximum(mtf.sqrt(squares * (1 / var.shape.size)),
                       self._epsilon2)
