"""Whether a model can be trained on a slice of TPUs, without one."""

import functools
import itertools
from typing import NamedTuple, Optional

import mesh_tensorflow as mtf
import pandas as pd
from mesh_tensorflow.transformer import utils

from mtf_conv import hardware
from mtf_conv.base import errors, gin_values
from mtf_conv.measure import models
from mtf_conv.measure.tpu import core

# As in section 4.2.1, and in gin/hardware/tpu.gin.
BATCH, INPUTS, TOKENS = 128, 512, 2048
_PAPER = ('base', 'v3-32', BATCH, INPUTS)
_GIB = 2**30


class Fit(NamedTuple):
  """A model on a slice.

  Attributes:
    path: the model's gin file.
    topology: a hardware.Topology.
    model_parallelism: how many cores share a replica of the model.
    batch: sequences in a step.
    inputs: the length of inputs.
    targets: the length of targets.
    sequences: in a microbatch of a replica.
    microbatches: in a step.
    memory: of a core, a core.Memory.
    most: sequences in the largest microbatch that fits; None if none does.
  """

  path: str
  topology: hardware.Topology
  model_parallelism: int
  batch: int
  inputs: int
  targets: int
  sequences: int
  microbatches: int
  memory: core.Memory
  most: Optional[int]

  @property
  def replicas(self):
    """How many replicas of the model there are."""
    return self.topology.cores // self.model_parallelism

  @property
  def mesh(self):
    """The mesh, as utils.run.mesh_shape has it: 'batch:16,model:2'."""
    return f'batch:{self.replicas}' + (
        f',model:{self.model_parallelism}' * (self.model_parallelism > 1))

  @property
  def fits(self):
    """Whether a core has memory for it."""
    return self.memory.total <= self.topology.memory

  @property
  def is_papers(self):
    """Whether it is how the paper pre-trains."""
    return (models.title(self.path).split('.')[-1], self.topology.name,
            self.batch, self.inputs) == _PAPER


def fit(path, topology, model_parallelism=None, batch=BATCH, inputs=INPUTS,
        targets=None, tokens=TOKENS) -> Fit:
  """Estimates what a core keeps in memory.

  Args:
    path: the model's gin file.
    topology: a hardware.Topology.
    model_parallelism: how many cores share a replica of the model; None for as
      few as the batch and the memory allow.
    batch: sequences in a step.
    inputs: the length of inputs.
    targets: the length of targets; None for those of span corruption.
    tokens: of a microbatch of a replica, as T5's
      tokens_per_microbatch_per_replica; None if the batch is not split.

  Raises:
    errors.UserError: the model or the batch does not divide over the cores.
  """
  targets = targets or models.targets_length(inputs)
  heads, d_ff = _sizes(path)
  choices = [model_parallelism]
  if model_parallelism is None:
    choices = hardware.parallelisms(topology.cores, heads, d_ff, batch) or [1]
  first = None
  for choice in choices:
    hardware.check(topology.cores, choice, heads, d_ff, batch)
    found = _fit(path, topology, choice, batch, inputs, targets, tokens)
    if found.fits:
      return found
    first = first or found
  return first


def _fit(path, topology, model_parallelism, batch, inputs, targets, tokens):
  step = _step(path, inputs, targets)
  whole = batch * model_parallelism // topology.cores
  microbatches = utils.serialize_num_microbatches(
      mtf.Dimension('batch', whole), {'inputs': inputs, 'targets': targets},
      mtf.Shape([]), core.LAYOUT, tokens)
  fitting = [n for n in range(1, whole + 1) if whole % n == 0 and step.memory(
      model_parallelism, whole // n, n).total <= topology.memory]
  return Fit(
      path, topology, model_parallelism, batch, inputs, targets,
      whole // microbatches, microbatches,
      step.memory(model_parallelism, microbatches, whole // microbatches),
      max(fitting, default=None))


@functools.lru_cache(maxsize=1)  # They are large.
def _step(path, inputs, targets):
  return core.Step(path, 1, inputs, targets)


@functools.lru_cache(maxsize=None)
def _sizes(path):
  models.parse([path])
  return gin_values.macro('num_heads'), gin_values.macro('d_ff')


def check(found):
  """Raises an error if a core has no memory for a model.

  Args:
    found: a Fit.

  Raises:
    errors.UserError: it has not, with the nearest setting with which it has.
  """
  if found.fits:
    return
  topology = found.topology
  remedy = 'no setting fits'
  if found.most:
    tokens = found.most * max(found.inputs, found.targets)
    remedy = f'TOKENS_PER_MICROBATCH = {tokens} fits'
  else:
    for choice in hardware.parallelisms(
        topology.cores, *_sizes(found.path), found.batch):
      other = _fit(found.path, topology, choice, found.batch, found.inputs,
                   found.targets, found.inputs)
      if other.fits:
        remedy = (f'MODEL_PARALLELISM = {choice} and TOKENS_PER_MICROBATCH = '
                  f'{found.inputs} fit')
        break
  needed, there = found.memory.total / _GIB, topology.memory / _GIB
  raise errors.UserError(
      f'{models.title(found.path)} needs {needed:.1f} GiB of the {there:g} GiB '
      f'of a core of {topology.name} '
      f'(microbatches of {found.sequences} sequences, model_parallelism '
      f'{found.model_parallelism}): {remedy}')


def to_frame(fits) -> pd.DataFrame:
  """Lists what a core holds.

  Args:
    fits: a list of Fit.

  Returns:
    A row for each; memory is in GiB, `most` in tokens of a microbatch.
  """
  return pd.DataFrame([{
      'model': models.title(f.path), 'topology': f.topology.name,
      'mesh': f.mesh, 'sequences': f.batch // f.replicas,
      'microbatches': f.microbatches,
      **{name: size / _GIB for name, size in f.memory._asdict().items()},
      'total': f.memory.total / _GIB,
      'most': (f.most or 0) * max(f.inputs, f.targets),
      'fits': 'yes' if f.fits else 'NO'} for f in fits])


def show(names, sizes, topologies, model_parallelism, batch, inputs, tokens,
         csv=None):
  """Prints the table, and raises an error for what does not fit.

  Args:
    names: models, see models.resolve.
    sizes: of models that are named without one.
    topologies: names; ['all'] for all there are.
    model_parallelism: see `fit`, as what follows.
    batch: sequences in a step.
    inputs: lengths of inputs, a list.
    tokens: of a microbatch of a replica.
    csv: a file for the table.

  Raises:
    errors.UserError: there is no such model or topology; or it does not divide,
      or does not fit.
  """
  if topologies == ['all']:
    topologies = hardware.topologies()
  chosen = [hardware.topology(name) for name in topologies]
  paths = [path for name in names for path in models.resolve(name, sizes)]
  fits = []
  for path, length, topology in itertools.product(paths, inputs, chosen):
    fits.append(fit(path, topology, model_parallelism, batch, length,
                    tokens=tokens))
  for topology in chosen:
    print(f'{topology.name}: {topology.cores} cores on {topology.chips} chips '
          f'({topology.shape}), {topology.memory / _GIB:g} GiB a core')
  frame = to_frame(fits)
  print(f'Batch of {batch} sequences. GiB of a core; rest: activations and '
        'gradients, an estimate. most: tokens of the largest microbatch that '
        'fits.')
  print(frame.to_string(index=False, float_format='{:.3f}'.format))
  if csv:
    frame.to_csv(csv, index=False, float_format='%.4f')
  if any(f.is_papers for f in fits) and all(
      f.fits for f in fits if f.is_papers):
    print(f'The set-up of the paper (16 chips, base size, {BATCH} x {INPUTS} '
          'tokens) fits.')
  for found in fits:
    check(found)
