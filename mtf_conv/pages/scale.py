"""What a step of training costs on TPUs, computed on paper: docs/scale.md."""

import functools
import math
import os
from typing import NamedTuple

import jinja2
import pandas as pd

from mtf_conv import hardware
from mtf_conv.base import gin_values
from mtf_conv.measure import models
from mtf_conv.measure.tpu import core, fit
from mtf_conv.replicate import grid, paper, plan

_SIZES = ('base', 'large')
# Section 4.2.1: the pre-training of a model took about 12 hours of 16 chips.
_PAPER_TOPOLOGY, _PAPER_HOURS = 'v3-32', 12
# Mesh TensorFlow sums a bfloat16 tensor over more cores than these in float32.
_BFLOAT16_CORES = 8
_CORES_OF_A_CHIP = 2


class Cost(NamedTuple):
  """A step of training.

  Attributes:
    flops: of a core; two for each multiply-add.
    least_bytes: that a core reads and writes, see core.Work.
    most_bytes: the same, at most.
    sent: bytes of a core's slices that are summed over cores.
    link_bytes: that a chip sends to others for these sums.
  """

  flops: int
  least_bytes: int
  most_bytes: int
  sent: int
  link_bytes: float


def cost(found) -> Cost:
  """Counts what a step costs.

  Args:
    found: a fit.Fit.
  """
  microbatch, optimizer = step_work(
      found.path, found.model_parallelism, found.sequences, found.inputs,
      found.targets)
  whole = optimizer.plus(microbatch, found.microbatches)
  sizes = {'batch': found.replicas, 'model': found.model_parallelism}
  sent = [allreduce_bytes(dims, dtype, elements, sizes)
          for (dims, dtype), elements in whole.allreduces.items()]
  return Cost(2 * whole.multiply_adds, whole.least_bytes, whole.most_bytes,
              *map(sum, zip(*sent)))


@functools.lru_cache(maxsize=None)
def step_work(path, model_parallelism, sequences, inputs, targets) -> tuple:
  """Counts the work of a core.

  Blocks that are alike do the same work. So models of one block and of two are
  lowered, in the place of one of 24 that takes minutes.

  Args:
    path: the model's gin file.
    model_parallelism: how many cores share a replica of the model.
    sequences: in a microbatch.
    inputs: the length of inputs.
    targets: the length of targets.

  Returns:
    (core.Work of a microbatch, core.Work of the optimizer).
  """
  models.parse([path])
  blocks = gin_values.macro('filter_sizes')
  if blocks is None:  # All alike.
    blocks = [None] * gin_values.macro('num_layers')

  @functools.lru_cache(maxsize=None)
  def lower(*filter_sizes):
    bindings = [f'num_layers = {len(filter_sizes)}']
    if filter_sizes[0]:
      bindings.append(f'filter_sizes = {list(filter_sizes)}')
    return core.Step(path, sequences, inputs, targets,
                     bindings=bindings).work(model_parallelism)

  parts = []
  for part in range(2):
    one = {block: lower(block)[part] for block in blocks}
    # What there is beside blocks: twice one block, less two of them.
    rest = one[blocks[0]].plus(one[blocks[0]]).plus(
        lower(blocks[0], blocks[0])[part], -1)
    whole = rest
    for block in blocks:
      whole = whole.plus(one[block]).plus(rest, -1)
    parts.append(whole)
  return tuple(parts)


def allreduce_bytes(dims, dtype, elements, sizes) -> tuple:
  """Counts what a sum over cores sends.

  The two cores of a chip are neighbours on the last dimension of the mesh. They
  add up first, where both take part in one sum; of c chips each then sends
  2 (c - 1) / c of what it holds, the least that a sum over chips can do with.

  Args:
    dims: of the mesh, over which it is.
    dtype: of what is summed.
    elements: of a core's slice.
    sizes: of the dimensions of the mesh, by name, batch before model.

  Returns:
    (bytes of a core's slice, bytes that a chip sends to other chips).
  """
  cores = math.prod(sizes[dim] for dim in dims)
  size = dtype.size
  if cores > _BFLOAT16_CORES:
    size = max(size, 4)
  last = [dim for dim, size_of_dim in sizes.items() if size_of_dim > 1][-1:]
  together = last and last[0] in dims
  chips = cores // _CORES_OF_A_CHIP if together else cores
  slices = 1 if together else _CORES_OF_A_CHIP
  of_slice = size * elements
  return of_slice, slices * of_slice * 2 * (chips - 1) / chips


def seconds(found, spent, utilisation) -> dict:
  """Returns how long a step takes at least, in parts that may overlap.

  Args:
    found: a fit.Fit.
    spent: its Cost.
    utilisation: the part of its peak FLOPs that a core gets to.

  Returns:
    A dict: compute, memory (of the least bytes), links.
  """
  topology = found.topology
  return {'compute': spent.flops / (topology.flops * utilisation),
          'memory': spent.least_bytes / topology.memory_rate,
          'links': spent.link_bytes / topology.allreduce_rate}


def to_frame(fits, utilisation) -> pd.DataFrame:
  """Lists what steps cost.

  Args:
    fits: a list of fit.Fit.
    utilisation: see `seconds`.

  Returns:
    A row for each: teraflops, gigabytes and milliseconds of a core or a chip.
  """
  rows = []
  for found in fits:
    spent = cost(found)
    times = seconds(found, spent, utilisation)
    rows.append({
        'model': models.title(found.path), 'topology': found.topology.name,
        'mesh': found.mesh, 'microbatches': found.microbatches,
        'teraflops': spent.flops / 1e12, 'least_gb': spent.least_bytes / 1e9,
        'most_gb': spent.most_bytes / 1e9, 'sent_gb': spent.sent / 1e9,
        'link_gb': spent.link_bytes / 1e9,
        **{f'{name}_ms': 1e3 * value for name, value in times.items()},
        # The batch at which links and products take as long.
        'even_sequences': math.nan if found.model_parallelism > 1 else (
            found.batch * times['links'] / times['compute'])})
  return pd.DataFrame(rows)


@functools.lru_cache(maxsize=None)
def table_2() -> pd.DataFrame:
  """Adds up the training of the paper's whole Table 2, replicate's scale base.

  Returns:
    A row for each model: jobs and exaflops of pre-training and of fine-tuning.
  """
  scale = grid.load_scale('base')
  runs = [r for r in grid.make(scale, 'runs') if r.stage != 'evaluate']
  frame = plan.to_frame(runs, scale)
  return pd.DataFrame([
      {'model': model, **{
          f'{stage}_{name}': value for stage in ('pretrain', 'finetune')
          for part in [frame[(frame.model == model) & (frame.stage == stage)]]
          for name, value in (('jobs', len(part)),
                              ('exaflops', part.petaflops.sum() / 1e3))}}
      for model in paper.MODELS])


def _topologies():
  """Returns the topologies of the generation that the paper used."""
  return hardware.topologies(_PAPER_TOPOLOGY.partition('-')[0])


def chip_hours(exaflops, part) -> float:
  """Returns for how long one chip is busy.

  Args:
    exaflops: how much there is to compute.
    part: of its peak that a chip gets to.
  """
  topology = hardware.topology(_PAPER_TOPOLOGY)
  chip = topology.flops * topology.cores / topology.chips
  return exaflops * 1e18 / (chip * part) / 3600


def utilisation() -> float:
  """Returns the part of the peak with which the paper's 12 hours come out.

  The FLOPs are those of the Transformer's pre-training, as counted here.
  """
  transformer = table_2().set_index('model').loc['transformer']
  return chip_hours(transformer.pretrain_exaflops, 1) / (
      _PAPER_HOURS * hardware.topology(_PAPER_TOPOLOGY).chips)


def write(path, sizes=_SIZES, say=print):
  """Writes the page, and a CSV file of its figures beside it.

  Args:
    path: of a Markdown file.
    sizes: of models.
    say: is told of each model.
  """
  part = utilisation()
  fits, costs = [], []
  for size in sizes:
    for kind in paper.MODELS:
      model_path, = models.resolve(f'{kind}.{size}')
      say(f'{kind}.{size}')
      of_model = [fit.fit(model_path, t)
                  for t in _topologies().values()]
      fits += of_model
      costs.append(to_frame(of_model, part))
  costs = pd.concat(costs, ignore_index=True)
  held = fit.to_frame(fits)
  total = table_2()
  for stage in ('pretrain', 'finetune'):
    total[f'{stage}_chip_hours'] = chip_hours(total[f'{stage}_exaflops'], part)

  def first(shares, limit):
    return next((name for name, share in zip(_topologies(), shares)
                 if share > limit), '-')

  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('mtf_conv.pages', '.'), trim_blocks=True,
      keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
  text = environment.get_template('scale.md.j2').render(
      sizes=sizes, held=_by_size(held), costs=_by_size(costs),
      slice=hardware.topology(_PAPER_TOPOLOGY), utilisation=part,
      paper_hours=_PAPER_HOURS, table_2=_rows(total),
      topologies=list(_topologies()), first=first,
      link_shares={
          model: list(rows.links_ms / rows.compute_ms)
          for model, rows in costs.groupby('model', sort=False)},
      data_parallel=_rows(costs[~costs.mesh.str.contains('model')]),
      batch=fit.BATCH, inputs=fit.INPUTS,
      targets=models.targets_length(fit.INPUTS))
  with open(path, 'w') as f:
    f.write(text)
  held.merge(costs).to_csv(
      os.path.splitext(path)[0] + '.csv', index=False, float_format='%.5g')


def _rows(frame):
  return frame.to_dict('records')


def _by_size(frame):
  sizes = frame.model.str.split('.').str[-1]
  return {size: _rows(rows) for size, rows in frame.groupby(sizes, sort=False)}
