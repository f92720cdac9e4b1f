"""A step of greedy decoding, as the TPU's compiler estimates it.

  python -m mtf_conv.measure.tpu.decoding --decode_lengths 64 512 2048 \
      --out docs/results/tpu/decoding.csv

T5's own decoding is built as its main builds it for a TPU: the encoder, and a
loop that gives each row one id more in every trip. How many trips there are is
not known before; what one takes is told. A part of each model is compiled, see
`cut`. Nothing is run.
"""

import itertools
import os

import pandas as pd
import tensorflow.compat.v1 as tf

from mtf_conv.base import command_line, errors
from mtf_conv.measure import models
from mtf_conv.measure.tpu import compiler, cut, estimates, program, step

BATCHES, DECODE_LENGTHS, INPUTS = (64, 512), (64, 512, 2048), 512
_CASE = ['model', 'topology', 'mesh', 'batch', 'inputs', 'decode_length']


def of_a_trip(text) -> tuple:
  """Tells the loop of a program from the rest.

  Args:
    text: of HLO, with one loop of which it is not known how often it runs.

  Returns:
    (the estimates.Rows of a trip, those of what is done once).
  """
  once, with_trip = (
      estimates.rows(text, unknown_trips) for unknown_trips in (0, 1))
  trip = [row._replace(times=row.times - other.times)
          for row, other in zip(with_trip, once)]
  return ([row for row in trip if row.times],
          [row for row in once if row.times])


def estimate(path, wanted, decode_length, cache=None, say=print) -> dict:
  """Compiles the decoding of a part of a model, and reckons the whole.

  Args:
    path: the model's gin file.
    wanted: a step.Setup.
    decode_length: how many ids there is room for.
    cache: see compiler.compile_program.
    say: is told what is done.

  Returns:
    A row of decoding.csv: cycles of a trip by kind and in all; `once`, of what
    is done before and after the loop.

  Raises:
    errors.UserError: it cannot be built, or is not compiled.
  """
  part = cut.cut(path)
  name = f'{models.title(path)}, {wanted.batch} rows, {decode_length} ids'
  say(f'{name}: building')
  built = program.export(
      path, phase='decode', mesh_shape=wanted.mesh, layout=wanted.layout,
      batch=wanted.batch, inputs=wanted.inputs, decode_length=decode_length,
      size=list(part.bindings))
  say(f'{name}: compiling {len(built) / 2**20:.0f} MiB of HLO')
  compiled = compiler.compile_program(
      built, wanted.topology, wanted.shape.size, cache)
  trip, once = (cut.whole(rows, part.counts, cut.growth(path))
                for rows in of_a_trip(compiled.text))
  missing, before = (
      found.pop('not_estimated_bytes') for found in (trip, once))
  return {
      'model': models.title(path), 'topology': wanted.topology,
      'mesh': wanted.mesh, 'batch': wanted.batch, 'inputs': wanted.inputs,
      'decode_length': decode_length, 'device': compiled.device,
      'counts': ' '.join(map(str, part.counts)), **trip,
      'cycles': sum(trip.values()), 'not_estimated_bytes': missing,
      'once': sum(once.values()), 'once_not_estimated_bytes': before,
      'temporaries_of_part': compiled.temporaries,
      'compile_seconds': compiled.seconds}


def main():
  """Prints the table and writes it, row by row."""
  parser = command_line.Parser(description=__doc__.partition('\n')[0])
  parser.add_argument('--models', nargs='+',
                      default=['transformer.base', 'lightconv.base'])
  parser.add_argument('--topology', default='v3:4x4')
  parser.add_argument('--mesh', help='the batch over all cores when not given')
  parser.add_argument('--batches', type=int, nargs='+', default=BATCHES)
  parser.add_argument('--inputs', type=int, default=INPUTS)
  parser.add_argument('--decode_lengths', type=int, nargs='+',
                      default=DECODE_LENGTHS)
  parser.add_argument('--cache', help='see mtf_conv bench tpu')
  parser.add_argument('--out', help='a file for the table, CSV; rows are added')
  args = parser.parse_args()
  tf.disable_v2_behavior()  # As mtf_conv bench tpu.
  tf.logging.set_verbosity(tf.logging.ERROR)
  paths = [path for name in args.models for path in models.resolve(name)]
  for batch, path, length in itertools.product(
      args.batches, paths, args.decode_lengths):
    wanted = step.setup(
        args.topology, args.mesh, batch=batch, inputs=args.inputs)
    try:
      row = estimate(path, wanted, length, args.cache)
    except errors.UserError as error:
      print(error, flush=True)
      continue
    print(*row.values(), flush=True)
    if args.out:
      add(args.out, row)


def add(path, row):
  """Adds a row to a CSV file, in place of one of the same case."""
  frame = pd.DataFrame([row])
  if os.path.exists(path):
    frame = pd.concat([pd.read_csv(path), frame])
  frame.drop_duplicates(_CASE, keep='last').to_csv(path, index=False)


if __name__ == '__main__':
  main()
