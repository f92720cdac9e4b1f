"""mtf_conv bench: which benchmark runs, how long, and where results go."""

import os

import tensorflow.compat.v1 as tf

from mtf_conv.base import gin_files, machine
from mtf_conv.measure import figures, models
from mtf_conv.measure.speed import (
  block,
  build,
  decode,
  op,
  profile,
  results,
  start,
  step,
  stock,
)

_BENCHMARKS = {'op': op.bench, 'block': block.bench, 'step': step.bench,
               'stock': stock.bench, 'decode': decode.bench,
               'build': build.bench, 'start': start.bench}

# For how long a case is timed; a case of slow candidates takes a few rounds.
_SECONDS, _QUICK_SECONDS = 5, 0.3

# What is left out to be done within a minute.
_QUICK = {
    'op': {},
    'block': {'tokens': 2048},
    'step': {'lengths': (512,), 'peak_lengths': (), 'peer_lengths': ()},
    'stock': {'cases': stock.CASES[:1], 'memory': False},
    'decode': {'lengths': (64, 1024), 'model_lengths': (64,),
               'whole_lengths': ()},
    'generate': {'lengths': (64,), 'batches': (1,)},
    'build': {'size': 'tiny', 'min_rounds': 1},
    'start': {'rounds': 1},
}


def run(what, quick=False, out_dir=None, benchmark=None, **options):
  """Runs a benchmark, prints its table and writes its files.

  Args:
    what: the name of the benchmark.
    quick: whether to be done within a minute.
    out_dir: a folder for <what>.csv and <what>.png; None for no files.
    benchmark: what measures; one of _BENCHMARKS when None.
    **options: arguments of the benchmark.

  Raises:
    errors.UserError: a candidate computes something else.
  """
  _start()
  rows = (benchmark or _BENCHMARKS[what])(
      _QUICK_SECONDS if quick else _SECONDS, say=_say,
      **{**(_QUICK[what] if quick else {}), **options})
  print(results.to_text(rows), end='', flush=True)
  if out_dir:
    results.write(rows, out_dir, what)
    print(f'Wrote {os.path.join(out_dir, what)}.csv and .png')


def figure1(out_dir, size=None, lengths=None, tokens=None, vocabulary=None,
            kinds=None):
  """Measures, prints and draws Figure 1 of the paper.

  Args:
    out_dir: a folder for figure1.csv and figure1.png; None for no files.
    size: of the models; None for 4+4 layers of d_model 256.
    lengths: of inputs.
    tokens: input tokens in a batch.
    vocabulary: how many ids there are.
    kinds: names of models; all that have the size when None.

  Raises:
    errors.UserError: a model computes something else.
  """
  _start()
  kinds = kinds or gin_files.model_names(size or 'mini')
  tokens = tokens or step.TOKENS
  vocabulary = vocabulary or models.VOCABULARY
  frame = step.figure1(
      [models.resolve(f'{kind}.{size or "mini"}')[0] for kind in kinds],
      () if size else models.BENCH_SIZE, lengths or step.LENGTHS, tokens,
      vocabulary, say=_say)
  table = frame.pivot(index='inputs', columns='model',
                      values='examples_per_second')[kinds]
  print(table.map('{:.3g}'.format).to_string())
  if out_dir:
    os.makedirs(out_dir, exist_ok=True)
    path = os.path.join(out_dir, 'figure1')
    name = size or '4+4 layers, d_model 256'
    frame.assign(size=name, vocabulary=vocabulary,
                 machine=machine.describe()).to_csv(
                     f'{path}.csv', index=False, float_format='%.4g')
    figures.lines(
        f'{path}.png', table, 'examples per second of span corruption',
        f'input length; batches of {tokens} tokens; {name}, {vocabulary} ids',
        machine.describe())
    print(f'Wrote {path}.csv and .png')


def profile_step(out_dir, names=None, vocabulary=None):
  """Measures, prints and draws where the time of a training step goes.

  Args:
    out_dir: a folder for profile.csv and profile.png; None for no files.
    names: of models, as models.resolve takes them; mini ones when None.
    vocabulary: how many ids there are; T5's when None.
  """
  _start()
  frame = profile.bench(
      names or ['lightconv.mini', 'transformer.mini'],
      vocabulary or models.VOCABULARY, say=_say)
  table = frame.pivot(index='kind', columns='step', values='milliseconds')
  table = table.loc[frame.kind.unique(), frame.step.unique()]
  print(table.map('{:.1f}'.format).to_string())
  if out_dir:
    os.makedirs(out_dir, exist_ok=True)
    path = os.path.join(out_dir, 'profile')
    frame.assign(machine=machine.describe()).to_csv(
        f'{path}.csv', index=False, float_format='%.4g')
    figures.bars(f'{path}.png', table.T, 'milliseconds of processors in a step',
                 machine.describe())
    print(f'Wrote {path}.csv and .png')


def _start():
  # As T5's main does: other variables and loops would have other speeds.
  tf.disable_v2_behavior()
  tf.logging.set_verbosity(tf.logging.ERROR)
  print(machine.describe(), flush=True)


def _say(case):
  print(f'  {case} ...', flush=True)
