"""mtf_conv bench: which benchmark runs, how long, and where results go."""

from mtf_conv import compat

compat.install()

import os  # noqa: E402

import tensorflow.compat.v1 as tf  # noqa: E402

from mtf_conv.measure import block, machine, op, results  # noqa: E402

_BENCHMARKS = {'op': op.bench, 'block': block.bench}

# For how long a case is timed; a case of slow candidates takes five rounds.
_SECONDS, _QUICK_SECONDS = 10, 0.5


def run(what, quick=False, out_dir=None, **sizes):
  """Runs a benchmark, prints its table and writes its files.

  Args:
    what: a key of _BENCHMARKS.
    quick: whether to be done within a minute.
    out_dir: a folder for <what>.csv and <what>.png; None for no files.
    **sizes: arguments of the benchmark; None leaves its default.

  Raises:
    errors.UserError: a candidate computes something else.
  """
  # As T5's main does: other variables and loops would have other speeds.
  tf.disable_v2_behavior()
  tf.logging.set_verbosity(tf.logging.ERROR)
  print(machine.describe(), flush=True)
  rows = _BENCHMARKS[what](
      _QUICK_SECONDS if quick else _SECONDS,
      say=lambda case: print(f'  {case} ...', flush=True),
      **{name: size for name, size in sizes.items() if size is not None})
  print(results.to_text(rows), end='', flush=True)
  if out_dir:
    results.write(rows, out_dir, what)
    print(f'Wrote {os.path.join(out_dir, what)}.csv and .png')
