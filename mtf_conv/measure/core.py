"""What one core of a mesh computes, keeps and sends in a step of training.

The graph is lowered as on a TPU, by Mesh TensorFlow's SIMD implementation: one
program for all cores, with the shapes of one core's slices. There is no TPU;
what would be sent between cores is written down and not sent.
"""

from mtf_conv import compat

compat.install()

import math  # noqa: E402
from typing import NamedTuple  # noqa: E402

import mesh_tensorflow as mtf  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402
from mesh_tensorflow.simd_mesh_impl import SimdMeshImpl  # noqa: E402

from mtf_conv import conv  # noqa: E402
from mtf_conv.measure import graph, models  # noqa: E402

# T5's, in Mesh TensorFlow's defaults.gin.
LAYOUT = ('ensemble:ensemble,batch:batch,d_ff:model,heads:model,vocab:model,'
          'experts:batch')


# bfloat16 activations, as gin/hardware/tpu.gin has them.
TPU_DTYPE = mtf.VariableDType(tf.bfloat16, tf.float32, tf.bfloat16)

# The program of a core is the same however many replicas there are beside it,
# if there are any.
_REPLICAS = 2


class Memory(NamedTuple):
  """Bytes of one core.

  Attributes:
    parameters: of the model, in float32.
    slots: of the optimizer, in float32.
    rest: activations, gradients, and what the optimizer computes, at most at a
      time.
  """

  parameters: int
  slots: int
  rest: int

  @property
  def total(self):
    """All of it."""
    return sum(self)


class Allreduce(NamedTuple):
  """A sum over cores.

  Attributes:
    dims: of the mesh, their names in a tuple.
    elements: of one core's slice.
    dtype: of the slice, a tf.DType.
  """

  dims: tuple
  elements: int
  dtype: tf.DType


class Work(NamedTuple):
  """What one core does.

  Attributes:
    multiply_adds: of all einsums and convolutions.
    bytes: (least, most) that it reads and writes. At least those of products
      and convolutions, when all else is computed on the way; at most the inputs
      and outputs of every operation.
    allreduces: a list of Allreduce.
  """

  multiply_adds: int
  bytes: tuple
  allreduces: list


class Step:
  """A step of training on one core: a microbatch, and the optimizer.

  Attributes:
    sequences: in the microbatch.
    parameters: of the whole model, how many there are.
  """

  def __init__(self, path, model_parallelism=1, sequences=1, inputs=512,
               targets=114, vocabulary=models.VOCABULARY,
               variable_dtype=TPU_DTYPE, replicas=_REPLICAS):
    """Builds the graph.

    Args:
      path: the model's gin file.
      model_parallelism: how many cores share a replica of the model.
      sequences: in a microbatch of a replica.
      inputs: the length of inputs.
      targets: the length of targets.
      vocabulary: how many ids there are.
      variable_dtype: an mtf.VariableDType.
      replicas: how many there are.

    Raises:
      ValueError: a tensor does not divide over the cores of a replica.
    """
    self.sequences = sequences
    self._mesh_impl = _OneCore([('batch', replicas),
                                ('model', model_parallelism)])
    models.parse([path])
    self._builder = graph.Builder()
    with self._builder as builder:
      _, self._gradients = models.training(
          builder, replicas * sequences, inputs, targets, vocabulary,
          variable_dtype)
      self.parameters = sum(v.size for v in builder.graph.trainable_variables)
      self._mark = _Mark(self._gradients[0], self._mesh_impl)
      models.optimize(builder, self._gradients)
    self._operations = list(builder.graph.operations)
    self._begin = self._operations.index(self._mark)

  def _bytes(self, tensor, sequences=None, dtype=None):
    """Returns the bytes of one core's slice, of so many sequences."""
    elements = math.prod(self._mesh_impl.slice_shape(tensor.shape))
    if sequences and 'batch' in tensor.shape.dimension_names:
      elements = elements * sequences // self.sequences
    return elements * (dtype or tensor.dtype).size

  def memory(self, microbatches=1, sequences=None) -> Memory:
    """Estimates what a core keeps in memory.

    Operations are run in the order in which they were made, and a tensor is
    kept until its last use. What XLA saves by fusing operations, and what it
    adds by padding to its tiles, is left out.

    Args:
      microbatches: how many there are in a step; gradients of several are added
        up beside those of one.
      sequences: in a microbatch, if not those the step was built with.
    """
    variables = self._builder.graph.all_variables
    parameters, slots = (
        sum(self._bytes(v.value, dtype=v.slice_dtype) for v in variables
            if v.trainable == trainable) for trainable in (True, False))
    live = self._live(sequences)
    training, optimizer = max(live[:self._begin]), max(live[self._begin:])
    if microbatches > 1:
      training += sum(self._bytes(g) for g in self._gradients)
    return Memory(parameters, slots, max(training, optimizer))

  def _live(self, sequences):
    """Returns the bytes of all tensors that live, operation by operation."""
    roots = {}
    last_use = {}
    for number, operation in enumerate(self._operations):
      if not isinstance(operation, mtf.ops.Assign):  # It is done at once.
        for tensor in operation.inputs:
          last_use[roots[tensor]] = number
      for tensor in operation.outputs:
        roots[tensor] = tensor
        if self._is_view(operation):
          roots[tensor] = roots[operation.inputs[0]]
        last_use[roots[tensor]] = number
    freed = {}
    for tensor, number in last_use.items():
      freed.setdefault(number, []).append(tensor)
    sizes = {tensor: self._own_bytes(tensor, sequences) for tensor in last_use}
    live, now = [], 0
    for number, operation in enumerate(self._operations):
      now += sum(sizes[t] for t in operation.outputs if roots[t] is t)
      live.append(now)
      now -= sum(sizes[t] for t in freed.get(number, ()))
    return live

  def _own_bytes(self, tensor, sequences):
    operation = tensor.operation
    if isinstance(operation, mtf.Variable) and (
        operation.slice_dtype == tensor.dtype):
      return 0  # It is the variable itself.
    return self._bytes(tensor, sequences)

  def _is_view(self, operation):
    return isinstance(operation, mtf.ReshapeOperation) and (
        self._bytes(operation.inputs[0]) == self._bytes(operation.outputs[0]))

  def work(self) -> tuple:
    """Lowers the step and counts.

    Returns:
      (Work of a microbatch, Work of the optimizer). A gradient is summed over
      replicas by the optimizer, once for all microbatches.
    """
    counters = self._builder.lower(self._mesh_impl).counters
    parts = []
    for part in (slice(None, self._mark.counters),
                 slice(self._mark.counters, None)):
      parts.append(sum(value for name, value in counters[part]
                       if name == 'einsum') // self._mesh_impl.size)
    allreduces = self._mesh_impl.allreduces
    begin = self._mark.allreduces
    return (Work(parts[0], self._traffic(self._operations[:self._begin]),
                 allreduces[:begin]),
            Work(parts[1], self._traffic(self._operations[self._begin:]),
                 allreduces[begin:]))

  def _traffic(self, operations):
    least = most = 0
    for operation in operations:
      if isinstance(operation, mtf.Variable) or self._is_view(operation):
        continue
      size = sum(map(self._bytes, [*operation.inputs, *operation.outputs]))
      most += size
      if _stands_alone(operation):
        least += size
    return least, most


def _stands_alone(operation):
  """Whether XLA does not compute it on the way to something else."""
  if isinstance(operation, mtf.ops.EinsumOperation):
    kept = operation.outputs[0].shape.dims
    return len(operation.inputs) > 1 and any(
        d not in kept for t in operation.inputs for d in t.shape.dims)
  return isinstance(operation, (
      conv.LocalConvOperation, conv.LocalConvGradOperation, mtf.ops.Assign))


class _Mark(mtf.Operation):
  """Notes where in a lowering the optimizer begins."""

  def __init__(self, tensor, mesh_impl):
    super().__init__([tensor], name='mark')
    self._mesh_impl = mesh_impl
    self._outputs = []

  def lower(self, lowering):
    self.counters = len(lowering.counters)
    self.allreduces = len(self._mesh_impl.allreduces)


class _OneCore(SimdMeshImpl):
  """The program of one core; `allreduces` lists what it would send."""

  def __init__(self, dims):
    super().__init__(
        mtf.Shape([mtf.Dimension(*dim) for dim in dims if dim[1] > 1]),
        mtf.convert_to_layout_rules(LAYOUT))
    self.allreduces = []

  class LaidOutVariable:
    """A variable's slice, without a master."""

    def __init__(self, variable, mesh_impl):
      self.laid_out_tensor = mesh_impl.LaidOutTensor([tf.placeholder(
          variable.slice_dtype, mesh_impl.slice_shape(variable.shape))])

    def assign_to_slices(self, assign_fn, values, assign_to_tensor_list=None):
      """Computes the new value; there is nothing to assign it to."""
      return tf.group(values)

  @property
  def pnum_tensor(self):
    """The number of this core."""
    return tf.zeros([], tf.int32)

  def allreduce(self, x, mesh_axes, reduction_fn_string):
    """Notes what is sent, and returns what this core has of the sum."""
    if reduction_fn_string != 'SUM':  # It is composed of sums.
      return super().allreduce(x, mesh_axes, reduction_fn_string)
    x = x.to_laid_out_tensor()
    self.allreduces.append(Allreduce(
        tuple(self.shape[axis].name for axis in mesh_axes),
        x.one_slice.shape.num_elements(), x.one_slice.dtype))
    return x
