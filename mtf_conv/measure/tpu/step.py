"""mtf_conv bench tpu: a step of training, as the TPU's compiler sees it.

Nothing is run: cycles are the compiler's estimates for one core, all cores do
the same. What it has no estimate for, transfers between cores among it, is
listed and counted nowhere.
"""

import math
import os
from typing import NamedTuple, Optional

import mesh_tensorflow as mtf
import pandas as pd
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import utils

from mtf_conv import hardware
from mtf_conv.base import errors, gin_files, gin_values
from mtf_conv.measure import figures, models
from mtf_conv.measure.tpu import compiler, core, estimates, fit, program

# A list with an entry for each layer.
FILTER_SIZES = 'mtf_conv.layers.DilatedConv.filter_sizes'

_MIB = 2**20
# Of a chip, as libtpu describes it.
_CORES_PER_CHIP = {'v2': 2, 'v3': 2, 'v4': 2, 'v5p': 2, 'v5e': 1, 'v6e': 1}


class Setup(NamedTuple):
  """How a step is divided over a slice.

  Attributes:
    topology: libtpu's name, such as v3:4x4.
    mesh: such as 'batch:16,model:2', over all cores or fewer.
    layout: layout rules of Mesh TensorFlow.
    batch: sequences in a step.
    inputs: the length of inputs; targets are those of span corruption.
    layers: of the encoder and of the decoder; None for those of the model.
  """

  topology: str
  mesh: str
  layout: str
  batch: int
  inputs: int
  layers: Optional[int]

  @property
  def shape(self):
    """The mesh as an mtf.Shape."""
    return mtf.convert_to_shape(self.mesh)

  @property
  def model_parallelism(self):
    """How many cores share a replica of the model."""
    return math.prod(d.size for d in self.shape.dims if d.name == 'model')

  @property
  def sequences(self):
    """Those of a replica in a step."""
    return self.batch * self.model_parallelism // self.shape.size


def setup(topology='v3:4x4', mesh=None, layout=None, batch=fit.BATCH,
          inputs=fit.INPUTS, layers=None) -> Setup:
  """Returns a Setup whose parts go together; arguments as its attributes.

  Args:
    topology: a name, see compiler.topology_name.
    mesh: None to split the batch over all cores.
    layout: None for T5's own.
    batch: sequences in a step.
    inputs: the length of inputs.
    layers: None or a number.

  Raises:
    errors.UserError: there is no such topology, or the mesh is too large.
  """
  topology = compiler.topology_name(topology)
  generation, _, chips = topology.partition(':')
  cores = math.prod(map(int, chips.split('x'))) * _CORES_PER_CHIP.get(
      generation, 1)
  mesh = mesh or f'batch:{cores}'
  try:
    size = mtf.convert_to_shape(mesh).size
    layout = layout or core.LAYOUT
    mtf.convert_to_layout_rules(layout)
  except ValueError as error:
    raise errors.UserError(
        f'--mesh={mesh} and --layout={layout} are written as '
        f"'batch:16,model:2' and 'batch:batch,heads:model': {error}") from error
  if generation in _CORES_PER_CHIP and size > cores:
    raise errors.UserError(
        f'mesh {mesh!r} takes {size} cores, and {topology} has {cores}')
  for name, value in (('batch', batch), ('length', inputs),
                      ('layers', 1 if layers is None else layers)):
    if value < 1:
      raise errors.UserError(f'{name} (={value}) must be at least 1')
  return Setup(topology, mesh, layout, batch, inputs, layers)


def bindings(path, layers) -> list[str]:
  """Returns gin bindings that leave a model so many layers.

  A list with an entry for each layer keeps as many, evenly picked.

  Args:
    path: the model's gin file.
    layers: of the encoder and of the decoder; None for all there are.
  """
  models.parse([path])
  if layers is None:
    return []
  bound = [f'num_layers = {layers}']
  sizes = gin_values.bound(FILTER_SIZES)
  if sizes:
    kept = [sizes[n * len(sizes) // layers] for n in range(layers)]
    bound.append(f'{FILTER_SIZES} = {kept}')
  return bound


def compile_step(path, wanted, cache=None, module_import=(), say=print,
                 bound=None):
  """Compiles a step of training.

  Args:
    path: the model's gin file.
    wanted: a Setup.
    cache: see compiler.compile_program.
    module_import: modules of the user that the model needs.
    say: is told what is done.
    bound: gin bindings that come after the file; those of wanted.layers when
      None.

  Returns:
    (a compiler.Compiled, a list of estimates.Row).

  Raises:
    errors.UserError: it does not divide, cannot be built, or is not compiled.
  """
  if bound is None:
    bound = bindings(path, wanted.layers)
  models.parse([path], bound)
  hardware.check(wanted.shape.size, wanted.model_parallelism,
                 gin_values.macro('num_heads'), gin_values.macro('d_ff'),
                 wanted.batch)
  compiler.python()  # Before a minute is spent.
  name = f'{models.title(path)}, {wanted.inputs} inputs'
  say(f'{name}: building')
  built = program.export(
      path, module_import, mesh_shape=wanted.mesh, layout=wanted.layout,
      batch=wanted.batch, inputs=wanted.inputs, size=list(bound))
  say(f'{name}: compiling {len(built) / _MIB:.0f} MiB of HLO')
  try:
    compiled = compiler.compile_program(
        built, wanted.topology, wanted.shape.size, cache)
  except errors.UserError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise errors.UserError(
        f'{models.title(path)}: {error}{_what_fits(path, wanted)}') from error
  return compiled, estimates.rows(compiled.text)


def memory(path, wanted, sequences=None) -> core.Memory:
  """Returns what `mtf_conv params` estimates that a core keeps.

  Args:
    path: the model's gin file.
    wanted: a Setup.
    sequences: in a microbatch; None for what T5 chooses.
  """
  targets = models.targets_length(wanted.inputs)
  made = core.Step(path, 1, wanted.inputs, targets,
                   bindings=bindings(path, wanted.layers))
  microbatches = utils.serialize_num_microbatches(
      mtf.Dimension('batch', wanted.sequences),
      {'inputs': wanted.inputs, 'targets': targets}, mtf.Shape([]),
      core.LAYOUT, fit.TOKENS)
  if sequences:
    microbatches = wanted.sequences // sequences
  return made.memory(wanted.model_parallelism, microbatches,
                     wanted.sequences // microbatches)


def _what_fits(path, wanted):
  """Returns the end of a line: which microbatch fits, by the estimate."""
  room = next((t.memory for t in hardware.topologies().values()
               if t.name.startswith(wanted.topology.partition(':')[0])), 0)
  fitting = [n for n in range(1, wanted.sequences + 1)
             if wanted.sequences % n == 0
             and memory(path, wanted, n).total <= room]
  if not fitting:
    return '; no microbatch fits'
  return (f'; by the estimate of mtf_conv params a microbatch of '
          f'{max(fitting)} sequences fits')


def bench(kinds=None, size='base', topology='v3:4x4', mesh=None, layout=None,
          lengths=(fit.INPUTS,), batch=fit.BATCH, layers=None, cache=None,
          out_dir=None, module_import=(), say=print):
  """Compiles models, prints their tables and writes its files.

  Args:
    kinds: names of models; all that have the size when None.
    size: of the models.
    topology: see setup, as what follows.
    mesh: over which the step is divided.
    layout: layout rules.
    lengths: of inputs.
    batch: sequences in a step.
    layers: of the encoder and of the decoder.
    cache: a folder for what is compiled.
    out_dir: a folder for tpu.csv, tpu_memory.csv and tpu.png; None for none.
    module_import: modules of the user that models need.
    say: is told what is done.

  Raises:
    errors.UserError: a model is not compiled; after those that are.
  """
  paths = [path for name in kinds or gin_files.model_names(size)
           for path in models.resolve(name, [size])]
  wanted = [setup(topology, mesh, layout, batch, n, layers) for n in lengths]
  parts, memories, failed = [], [], []
  for each in wanted:
    for path in paths:
      try:
        compiled, rows = compile_step(path, each, cache, module_import, say)
      except errors.UserError as error:
        failed.append(error)
        say(str(error))
        continue
      parts += _parts(path, each, compiled, rows)
      memories.append(_memory_row(path, each, compiled))
      if out_dir:  # What comes next may take minutes, and fail.
        _write(out_dir, to_frame(parts), pd.DataFrame(memories))
  if parts:
    say(to_text(to_frame(parts), pd.DataFrame(memories)))
    if out_dir:
      say(f'Wrote {os.path.join(out_dir, "tpu")}.csv and .png')
  if failed:
    raise failed[0]


def _described(path, wanted, compiled):
  return {'model': models.title(path), 'topology': wanted.topology,
          'mesh': wanted.mesh, 'batch': wanted.batch, 'inputs': wanted.inputs,
          'layers': wanted.layers or '', 'device': compiled.device}


def _parts(path, wanted, compiled, rows):
  """Lists the parts of a step, one dict each; 'whole' is the last."""
  sums = {**estimates.by_kind(rows), 'whole': estimates.total(rows)}
  return [{
      **_described(path, wanted, compiled), 'part': name,
      'cycles': found.cycles, 'bytes': found.bytes,
      'not_estimated': ' '.join(
          f'{opcode}:{times}' for opcode, times in sorted(
              found.missing.items())),
      'not_estimated_bytes': found.missing_bytes,
  } for name, found in sums.items()]


def to_frame(parts) -> pd.DataFrame:
  """Returns parts as a table, in which what is not estimated stays empty."""
  return pd.DataFrame(parts).astype({'cycles': 'Int64'})


def _memory_row(path, wanted, compiled):
  """Returns bytes of a core: the compiler's, and those of `mtf_conv params`."""
  estimate = (memory(path, wanted) if wanted.layout == core.LAYOUT else None)
  return {
      **_described(path, wanted, compiled),
      **{name: getattr(compiled, name) for name in (
          'arguments', 'temporaries', 'outputs', 'aliased', 'code', 'peak')},
      'estimated_variables': (
          estimate and estimate.parameters + estimate.slots),
      'estimated_rest': estimate and estimate.rest,
      'estimated_total': estimate and estimate.total,
      'estimate_over_compiler': estimate and round(
          estimate.total / compiled.peak, 4),
      'compile_seconds': compiled.seconds}


def to_text(parts, memories) -> str:
  """Returns the tables as lines.

  Args:
    parts: a pd.DataFrame with the columns of tpu.csv.
    memories: one with those of tpu_memory.csv.
  """
  lines = []
  for (topology, mesh, inputs), frame in parts.groupby(
      ['topology', 'mesh', 'inputs'], sort=False):
    device = frame.device.iloc[0]
    lines.append(
        f'{topology} ({device}), {mesh}, {frame.batch.iloc[0]} x {inputs} '
        'inputs: million cycles of a core, estimated by its compiler; nothing '
        'was run')
    order = [kind for kind in (*estimates.KINDS, 'whole')
             if kind in set(frame.part)]
    table = frame.pivot(index='part', columns='model', values='cycles').loc[
        order, list(dict.fromkeys(frame.model))].astype(float) / 1e6
    if device in compiler.HERTZ:
      table.loc['whole, ms'] = (
          1e9 * table.loc['whole'] / compiler.HERTZ[device])
    transformers = [m for m in table if m.startswith('transformer')]
    if transformers and len(table.columns) > 1:
      table.loc['Transformer / it'] = (
          table.loc['whole', transformers[0]] / table.loc['whole'])
    text = table.to_string(
        float_format='{:.2f}'.format, na_rep='not estimated').splitlines()
    lines += [text[0], *text[2:]]  # Without the name of the index.
    for model, rows in frame.groupby('model', sort=False):
      lines += _without_estimate(model, rows)
  shown = memories[['model', 'inputs']].copy()
  for name in ('arguments', 'temporaries', 'peak', 'estimated_variables',
               'estimated_rest', 'estimated_total'):
    shown[name] = (memories[name] / _MIB).round(0)
  shown['ratio'] = memories.estimate_over_compiler
  shown['compiled, s'] = memories.compile_seconds
  lines += ["MiB of a core: the compiler's, and the estimate of mtf_conv "
            'params', *shown.to_string(index=False).splitlines()]
  return '\n'.join(lines)


def _without_estimate(model, rows):
  """Lists by name what is in no sum."""
  lines = []
  for row in rows[rows.not_estimated != ''].itertuples():
    if row.part != 'whole':
      lines.append(
          f'{model}: no estimate in {row.part} for {row.not_estimated} '
          f'({row.not_estimated_bytes / _MIB:.1f} MiB read and written)')
  return lines


def _write(out_dir, parts, memories):
  os.makedirs(out_dir, exist_ok=True)
  parts.to_csv(os.path.join(out_dir, 'tpu.csv'), index=False)
  memories.to_csv(os.path.join(out_dir, 'tpu_memory.csv'), index=False)
  shown = parts[(parts.part != 'whole') & parts.cycles.notna()].assign(
      name=parts.model + ', ' + parts.inputs.astype(str))
  table = (shown.pivot(index='name', columns='part', values='cycles')
           .astype(float) / 1e6).loc[list(dict.fromkeys(shown.name))]
  first = parts.iloc[0]
  figures.bars(
      os.path.join(out_dir, 'tpu.png'),
      table[[kind for kind in estimates.KINDS if kind in table]].fillna(0),
      f'million cycles of a core of {first.topology}, {first.mesh}; '
      'estimated, transfers not in it',
      f'libtpu {compiler.VERSIONS["libtpu"]}, bfloat16, {first.batch} '
      'sequences')


def run(out_dir=None, say=print, benchmark=bench, **options):
  """Does what `mtf_conv bench tpu` asks; see bench, and figure1.bench."""
  tf.disable_v2_behavior()  # As the other benchmarks.
  tf.logging.set_verbosity(tf.logging.ERROR)
  benchmark(out_dir=out_dir, say=lambda line: say(line, flush=True), **options)
