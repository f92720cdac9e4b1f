"""What one core of a mesh computes, keeps and sends in a step of training.

The graph is lowered as on a TPU, by Mesh TensorFlow's SIMD implementation: one
program for all cores, with the shapes of one core's slices. There is no TPU;
what would be sent between cores is written down and not sent.
"""

import collections
import math
from typing import NamedTuple

import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.simd_mesh_impl import SimdMeshImpl

from mtf_conv import conv
from mtf_conv.measure import graph, models

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


class Work(NamedTuple):
  """What one core does.

  Attributes:
    multiply_adds: of all einsums and convolutions.
    least_bytes: that it reads and writes for products, convolutions and
      assignments, when all else is computed on the way.
    most_bytes: the inputs and outputs of every operation.
    allreduces: what is summed over cores, a dict from (dims, dtype), the names
      of dimensions of the mesh and a tf.DType, to elements of a core's slices.
  """

  multiply_adds: int
  least_bytes: int
  most_bytes: int
  allreduces: dict

  def plus(self, other, times=1):
    """Returns the work of both, with so many times that of other."""
    allreduces = dict(self.allreduces)
    for key, elements in other.allreduces.items():
      allreduces[key] = allreduces.get(key, 0) + times * elements
    return Work(*(a + times * b for a, b in zip(self[:3], other[:3])),
                {key: n for key, n in allreduces.items() if n})


class Step:
  """A step of training on one core: a microbatch, and the optimizer.

  Attributes:
    parameters: of the whole model, how many there are.
  """

  def __init__(self, path, sequences=1, inputs=512, targets=114,
               vocabulary=models.VOCABULARY, variable_dtype=TPU_DTYPE,
               replicas=_REPLICAS, bindings=()):
    """Builds the graph, which is the same on every mesh.

    Args:
      path: the model's gin file.
      sequences: in a microbatch of a replica.
      inputs: the length of inputs.
      targets: the length of targets.
      vocabulary: how many ids there are.
      variable_dtype: an mtf.VariableDType.
      replicas: how many there are.
      bindings: of gin, that come after the file.
    """
    self._sequences, self._replicas = sequences, replicas
    models.parse([path], [*models.AS_ON_TPU, *bindings])
    self._builder = graph.Builder()
    with self._builder as builder:
      _, self._gradients = models.training(
          builder, replicas * sequences, inputs, targets, vocabulary,
          variable_dtype)
      self.parameters = sum(v.size for v in builder.graph.trainable_variables)
      self._mark = _Mark(self._gradients[0])
      models.optimize(builder, self._gradients)
    self._variables = list(builder.graph.all_variables)
    self._operations = list(builder.graph.operations)
    self._begin = self._operations.index(self._mark)
    self._peaks = {}

  def memory(self, model_parallelism=1, microbatches=1,
             sequences=None) -> Memory:
    """Estimates what a core keeps in memory.

    Operations are run in the order in which they were made, and a tensor is
    kept until its last use. What is computed element by element is not kept,
    but computed wherever it is used: XLA fuses it. What XLA adds by padding to
    its tiles is left out.

    Args:
      model_parallelism: how many cores share a replica of the model.
      microbatches: how many there are in a step; gradients of several are added
        up beside those of one.
      sequences: in a microbatch, if not those the step was built with.

    Raises:
      ValueError: a tensor does not divide over the cores of a replica.
    """
    mesh_impl = _OneCore(self._replicas, model_parallelism)
    parameters, slots = (
        sum(_bytes(mesh_impl, v.value, v.slice_dtype) for v in self._variables
            if v.trainable == trainable) for trainable in (True, False))
    key = (model_parallelism, sequences or self._sequences)
    if key not in self._peaks:
      self._peaks[key] = self._find_peaks(mesh_impl, key[1])
    training, optimizer = self._peaks[key]
    if microbatches > 1:
      training += sum(_bytes(mesh_impl, g) for g in self._gradients)
    return Memory(parameters, slots, max(training, optimizer))

  def _find_peaks(self, mesh_impl, sequences):
    """Returns the most bytes at a time, of training and of the optimizer."""
    def size(tensor):
      operation = tensor.operation
      if isinstance(operation, mtf.Variable) and (
          operation.slice_dtype == tensor.dtype):
        return 0  # It is the variable itself.
      of_step = _bytes(mesh_impl, tensor)
      if 'batch' in tensor.shape.dimension_names:
        return of_step * sequences // self._sequences
      return of_step

    live = live_bytes(self._operations, size, _is_kept)
    return max(live[:self._begin]), max(live[self._begin:])

  def work(self, model_parallelism=1) -> tuple:
    """Lowers the step and counts; it can be lowered once.

    Args:
      model_parallelism: how many cores share a replica of the model.

    Returns:
      (Work of a microbatch, Work of the optimizer). A gradient is summed over
      replicas by the optimizer, once for all microbatches.
    """
    mesh_impl = _OneCore(self._replicas, model_parallelism)
    traffic = [_traffic(mesh_impl, self._operations[part])
               for part in _halves(self._begin)]
    counters = self._builder.lower(mesh_impl).counters
    return tuple(
        Work(sum(n for name, n in counters[part] if name == 'einsum')
             // mesh_impl.size, *bytes_, _sums(mesh_impl.allreduces[summed]))
        for part, bytes_, summed in zip(
            _halves(self._mark.counters), traffic,
            _halves(self._mark.allreduces)))


def _bytes(mesh_impl, tensor, dtype=None):
  """Returns the bytes of one core's slice."""
  return math.prod(mesh_impl.slice_shape(tensor.shape)) * (
      dtype or tensor.dtype).size


def _is_view(mesh_impl, operation):
  """Whether what an operation makes is kept in what it is made of."""
  return isinstance(operation, mtf.ReshapeOperation) and (
      _bytes(mesh_impl, operation.inputs[0])
      == _bytes(mesh_impl, operation.outputs[0]))


def _traffic(mesh_impl, operations):
  least = most = 0
  for operation in operations:
    if isinstance(operation, mtf.Variable) or _is_view(mesh_impl, operation):
      continue
    size = sum(_bytes(mesh_impl, tensor)
               for tensor in [*operation.inputs, *operation.outputs])
    most += size
    if _stands_alone(operation):
      least += size
  return least, most


def _halves(number):
  return slice(None, number), slice(number, None)


def _sums(pairs):
  total = collections.Counter()
  for key, elements in pairs:
    total[key] += elements
  return dict(total)


def live_bytes(operations, size, is_kept) -> list[int]:
  """Counts what lives while operations run one after another.

  A tensor lives from the operation that makes it to the last that uses it. One
  that is not kept has what it is made of live so long. One that is assigned to
  a variable need not live on: it is assigned at once.

  Args:
    operations: a list of mtf Operations in the order in which they run.
    size: a function from an mtf Tensor to its bytes.
    is_kept: a function from an Operation to whether its outputs are kept, and
      not a view of its inputs or computed from them wherever they are used.

  Returns:
    The bytes of all tensors that live, operation by operation.
  """
  needs = {}  # From each tensor to those that are kept for it.
  last_use = {}
  for number, operation in enumerate(operations):
    needed = set().union(*(needs[t] for t in operation.inputs))
    if not isinstance(operation, mtf.ops.Assign):
      last_use.update(dict.fromkeys(needed, number))
    for tensor in operation.outputs:
      needs[tensor] = {tensor} if is_kept(operation) else needed
      last_use.update(dict.fromkeys(needs[tensor], number))
  freed = collections.defaultdict(int)
  for tensor, number in last_use.items():
    freed[number] += size(tensor)
  live, now = [], 0
  for number, operation in enumerate(operations):
    now += sum(size(t) for t in operation.outputs if t in needs[t])
    live.append(now)
    now -= freed[number]
  return live


def _stands_alone(operation):
  """Whether XLA does not compute it on the way to something else."""
  if isinstance(operation, mtf.ops.EinsumOperation):
    kept = operation.outputs[0].shape.dims
    return len(operation.inputs) > 1 and any(
        d not in kept for t in operation.inputs for d in t.shape.dims)
  return isinstance(operation, (
      conv.LocalConvOperation, conv.LocalConvGradOperation, mtf.ops.Assign))


def _is_kept(operation):
  """Whether XLA writes what an operation makes to memory."""
  return not operation.inputs or _stands_alone(operation) or isinstance(
      operation, (mtf.Variable, mtf.ops.ReduceOperation))


class _Mark(mtf.Operation):
  """Notes where in a lowering the optimizer begins."""

  def __init__(self, tensor):
    super().__init__([tensor], name='mark')
    self._outputs = []

  def lower(self, lowering):
    self.counters = len(lowering.counters)
    self.allreduces = len(lowering.mesh_impl(self).allreduces)


class _OneCore(SimdMeshImpl):
  """The program of one core; `allreduces` lists what it would send."""

  def __init__(self, replicas, model_parallelism):
    dims = [mtf.Dimension('batch', replicas),
            mtf.Dimension('model', model_parallelism)]
    super().__init__(mtf.Shape([dim for dim in dims if dim.size > 1]),
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
    dims = tuple(self.shape[axis].name for axis in mesh_axes)
    self.allreduces.append(
        ((dims, x.one_slice.dtype), x.one_slice.shape.num_elements()))
    return x
