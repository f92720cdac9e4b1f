"""The machines that a model can be trained on, and whether it divides over one.

gin/hardware/tpu.gin and gpu.gin get their mesh from here. It is T5's and Mesh
TensorFlow's own: a dimension `batch`, over the replicas of the model, and a
dimension `model`, over the cores of a replica, which heads, d_ff and the
vocabulary are split over.
"""

import json
import math
import os
from typing import NamedTuple

import gin

from mtf_conv.base import errors, gin_values

# A vocabulary is rounded up to a multiple of it.
_VOCABULARY_MULTIPLE = 128


class Topology(NamedTuple):
  """A slice of TPU chips.

  Attributes:
    name: such as 'v3-32'; the number is that of cores, as its maker counts.
    cores: how many TensorFlow sees; of v4 half the number, since it sees the
      two of a chip as one.
    chips: how many there are, laid out as `shape`.
    shape: such as '4x4'.
    flops: of a core in a second, in bfloat16, at most.
    memory: of a core, bytes.
    memory_rate: bytes that a core reads or writes in a second, at most.
    allreduce_rate: bytes that a chip puts on its links in a second, at most.
  """

  name: str
  cores: int
  chips: int
  shape: str
  flops: float
  memory: int
  memory_rate: float
  allreduce_rate: float


def _generations():
  """Reads what is known of each generation of TPUs, by its name."""
  with open(os.path.join(os.path.dirname(__file__), 'tpus.json')) as f:
    return json.load(f)


def topologies(generation=None) -> dict[str, Topology]:
  """Returns the topologies there are, from small to large.

  Args:
    generation: such as 'v3'; all when None.
  """
  return {name: _topology(name, shape, data)
          for key, data in _generations().items() if generation in (None, key)
          for name, shape in data.get('topologies', {}).items()}


def _topology(name, shape, data):
  chips = math.prod(map(int, shape.split('x')))
  return Topology(
      name, chips * data['cores_per_chip'], chips, shape,
      data['flops_per_core'], data['bytes_per_core'],
      data['hbm_bytes_per_second_per_core'],
      data['allreduce_bytes_per_second_per_chip'])


def topology(name) -> Topology:
  """Finds a topology.

  Args:
    name: such as 'v3-32'.

  Raises:
    errors.UserError: there is none, with the one of the nearest size; or T5
      cannot train on its generation.
  """
  known = topologies()
  if name in known:
    return known[name]
  generation, _, cores = str(name).partition('-')
  generations = _generations()
  if generation in generations and not generations[generation]['runtimes']:
    usable = [key for key, data in generations.items() if data['runtimes']]
    raise errors.UserError(
        f'T5 cannot train on TPU {generation}: its images speak to it through '
        'PJRT alone, where TPUEstimator crashes (tensorflow/tensorflow#90807): '
        f'take one of {", ".join(usable)}, such as {usable[-1]}-32')
  sizes = {int(other.partition('-')[2]): other
           for other in topologies(generation)}
  if cores.isdigit() and int(cores) and sizes:
    nearest = f'; did you mean {sizes[_nearest(int(cores), sizes)]!r}?'
  else:
    nearest = errors.nearest(name, known)
  raise errors.UserError(
      f'TPU topology {name!r} does not exist: choose from '
      f'{", ".join(known)}{nearest}')


def _nearest(number, numbers):
  """Returns the one of numbers by the smallest factor, of two the larger."""
  return min(numbers, key=lambda n: (abs(math.log(n / number)), -n))


def parallelisms(cores, num_heads, d_ff, batch=None) -> list[int]:
  """Lists the model_parallelisms with which a model divides over cores.

  Args:
    cores: how many there are.
    num_heads: of the model.
    d_ff: of the model.
    batch: sequences that have to divide as well; None if they need not.
  """
  return [m for m in range(1, cores + 1)
          if not any(whole % m for whole in _split(cores, num_heads, d_ff))
          and (batch is None or batch % (cores // m) == 0)]


def _split(*sizes):
  """What model_parallelism has to divide."""
  return (*sizes, _VOCABULARY_MULTIPLE)


def check(cores, model_parallelism, num_heads, d_ff, batch=None):
  """Checks that a model and its batch divide over cores.

  Args:
    cores: how many there are.
    model_parallelism: how many of them share a replica of the model.
    num_heads: of the model.
    d_ff: of the model.
    batch: sequences in a batch; None if it is not known.

  Raises:
    errors.UserError: they do not, with the nearest setting that does.
  """
  if cores < 1:
    raise errors.UserError(f'there must be at least 1 core, not {cores}')
  valid = parallelisms(cores, num_heads, d_ff)
  if model_parallelism not in valid:
    names = ('the number of cores', 'num_heads', 'd_ff',
             'the multiple of vocabularies')
    failing = [f'{name} (={size})' for name, size in zip(
        names, _split(cores, num_heads, d_ff))
               if model_parallelism < 1 or size % model_parallelism]
    raise errors.UserError(
        f'model_parallelism (={model_parallelism}) must divide '
        f'{" and ".join(failing)}: {_nearest(max(model_parallelism, 1), valid)}'
        ' does')
  replicas = cores // model_parallelism
  if batch is not None and (batch < 1 or batch % replicas):
    remedy = f'a batch of {max(1, round(batch / replicas)) * replicas} does'
    larger = [m for m in parallelisms(cores, num_heads, d_ff, max(batch, 1))
              if m > model_parallelism]
    if batch > 0 and larger:
      remedy += f', or model_parallelism = {larger[0]}'
    raise errors.UserError(
        f'a batch of {batch} sequences must divide by {replicas} replicas '
        f'({cores} cores, model_parallelism {model_parallelism}): {remedy}')


@gin.configurable
def tpu_mesh(num_heads=gin.REQUIRED, d_ff=gin.REQUIRED):
  """Returns the mesh of T5's tpu_mesh_shape, checked before a TPU is touched.

  Args:
    num_heads: of the model.
    d_ff: of the model.

  Returns:
    An mtf Shape.

  Raises:
    errors.UserError: there is no such topology, or the model or the batch does
      not divide over it.
  """
  from mesh_tensorflow.transformer import utils
  cores = topology(gin_values.bound('utils.tpu_mesh_shape.tpu_topology')).cores
  model_parallelism = gin_values.bound('utils.tpu_mesh_shape.model_parallelism')
  check(cores, model_parallelism, num_heads, d_ff)
  # T5 takes the number of a name for that of cores, whatever stands before it.
  shape = utils.tpu_mesh_shape(f'v-{cores}')
  check(cores, model_parallelism, num_heads, d_ff, _batch(shape))
  return shape


@gin.configurable
def gpu_mesh(num_gpus=gin.REQUIRED, model_parallelism=gin.REQUIRED,
             num_heads=gin.REQUIRED, d_ff=gin.REQUIRED):
  """Returns a mesh of GPUs, for utils.run.mesh_shape.

  Args:
    num_gpus: how many there are.
    model_parallelism: how many of them share a replica of the model.
    num_heads: of the model.
    d_ff: of the model.

  Returns:
    An mtf Shape.

  Raises:
    errors.UserError: the model or the batch does not divide over them.
  """
  import mesh_tensorflow as mtf
  check(num_gpus, model_parallelism, num_heads, d_ff)
  shape = mtf.Shape([mtf.Dimension('batch', num_gpus // model_parallelism),
                     mtf.Dimension('model', model_parallelism)])
  check(num_gpus, model_parallelism, num_heads, d_ff, _batch(shape))
  return shape


@gin.configurable
def gpu_devices(num_gpus=gin.REQUIRED):
  """Returns the names of GPUs, for utils.run.mesh_devices.

  Args:
    num_gpus: how many there are.
  """
  return [f'gpu:{number}' for number in range(num_gpus)]


def _batch(mesh_shape):
  """Returns the sequences in the batch of utils.run; None if it has none."""
  from mesh_tensorflow.transformer import utils
  batch, sequence_length, layout_rules = (
      gin_values.bound(f'utils.run.{name}')
      for name in ('batch_size', 'sequence_length', 'layout_rules'))
  if batch is None or isinstance(batch, int):
    return batch
  if sequence_length is None and 'tokens' in batch[0]:
    return None
  return utils.compute_batch_size(
      sequence_length, mesh_shape, layout_rules, batch)
