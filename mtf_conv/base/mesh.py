"""Sums over the axes of a mesh, as operations of our own need them."""

import mesh_tensorflow as mtf


def summed(lowering, laid_out, axes, tensor, name):
  """Adds up what processors have, when somebody reads it.

  Args:
    lowering: an mtf.Lowering.
    laid_out: a LaidOutTensor.
    axes: of the mesh; a None among them is no axis.
    tensor: the mtf Tensor that the sum is the value of.
    name: what the counter 'allreduce/<axes>/<name>' calls it.

  Returns:
    A LaidOutTensor, or a LazyAllreduceSum.
  """
  axes = [axis for axis in axes if axis is not None]
  if not axes:
    return laid_out
  mesh_impl = lowering.mesh_impl(tensor)
  return mtf.LazyAllreduceSum(
      mesh_impl, laid_out, axes, add_counter_fn=lambda: lowering.add_counter(
          f'allreduce/{axes}/{name}', mesh_impl.laid_out_size(tensor.shape)))


def axes_of(lowering, tensor):
  """Returns the axes of the mesh that split a tensor, None for other dims."""
  return lowering.mesh_impl(tensor).tensor_layout(
      tensor).tensor_axis_to_mesh_axis
