"""The ways to compute a convolution, as the TPU's compiler estimates them.

  python -m mtf_conv.measure.tpu.lowerings --taps 3 7 \
      --out docs/results/tpu/lowerings.csv

A block is the layer of a model, with its products and its gate, on one core:
forward and backward, with bfloat16 activations and float32 variables. Nothing
is run. `conv_lowerings.fastest` chooses by this table.
"""

import itertools
import os
from typing import NamedTuple, Optional

import mesh_tensorflow as mtf
import pandas as pd
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer_layers

from mtf_conv import conv, conv_lowerings, layers
from mtf_conv.base import command_line
from mtf_conv.measure import graph, models
from mtf_conv.measure.tpu import compiler, core, estimates, program

TAPS = (3, 4, 7, 9, 15, 31, 63)
# What is not chosen among: the least there is, and what is replaced.
PRODUCTS, ATTENTION = 'products', 'attention'
_DTYPES = {'bfloat16': core.TPU_DTYPE,
           'float32': mtf.VariableDType(tf.float32)}


class Case(NamedTuple):
  """A block.

  Attributes:
    filters: 'light' or 'dynamic'.
    taps: k; 1 where it has no filters.
    segments: 'one' (rows are whole) or 'several' (packed: they are compared).
    lowering: one of conv_lowerings.NAMES; PRODUCTS, of the block alone; or
      ATTENTION, self-attention in its place.
    causal: whether it is a decoder's.
    dilation: the distance between taps.
    rows: sequences.
    length: of a sequence.
    heads: of d_kv channels each.
    d_kv: channels of a head; d_model is heads * d_kv.
    num_filters: H.
    dtype: of activations.
  """

  filters: str
  taps: int
  segments: str
  lowering: str
  causal: bool = False
  dilation: int = 1
  rows: int = 8
  length: int = 512
  heads: int = 12
  d_kv: int = 64
  num_filters: int = 2
  dtype: str = 'bfloat16'


def cases(taps=TAPS, filters=('light', 'dynamic'), segments=('one', 'several'),
          names=conv_lowerings.NAMES, **others) -> list[Case]:
  """Lists the cases that can be computed.

  Args:
    taps: several k.
    filters: one or both.
    segments: one or both.
    names: of conv_lowerings.NAMES. With all come what there is beside them,
      PRODUCTS and ATTENTION.
    **others: further attributes of Case.
  """
  found = []
  all_of_them = set(names) == set(conv_lowerings.NAMES)
  if 'light' in filters and all_of_them:
    found = [Case('light', 1, 'one', PRODUCTS, **others), *(
        Case('light', 1, packed, ATTENTION, **others) for packed in segments)]
  if 'dynamic' in filters and all_of_them:
    found += [Case('dynamic', k, 'one', PRODUCTS, **others) for k in taps]
  for kind, k, packed, name in itertools.product(
      filters, taps, segments, names):
    offsets = conv.centred_offsets(k, others.get('dilation', 1))
    # Several segments make filters that differ, unless matrix masks them.
    static = kind == 'light' and (packed == 'one' or name == 'matrix')
    if conv_lowerings.supports(name, static, offsets):
      found.append(Case(kind, k, packed, name, **others))
  return found


def build(case) -> bytes:
  """Builds a block, forward and backward; this process has to be eager.

  Args:
    case: a Case.

  Returns:
    A serialized HloModuleProto.
  """
  dims = [mtf.Dimension('batch', case.rows), mtf.Dimension(
      'length', case.length), mtf.Dimension('d_model', case.heads * case.d_kv)]
  variable_dtype = _DTYPES[case.dtype]
  dtype = variable_dtype.activation_dtype
  with tf.Graph().as_default() as tf_graph:
    shape = [dim.size for dim in dims]
    inputs = [tf.placeholder(dtype, shape), tf.placeholder(dtype, shape),
              tf.placeholder(tf.int32, shape[:2])]
    with program.on_tpu(), tf.variable_scope('block', use_resource=True):
      mesh = mtf.Mesh(mtf.Graph(), 'mesh')
      x, dy = (mtf.import_tf_tensor(mesh, t, mtf.Shape(dims))
               for t in inputs[:2])
      segments = mtf.import_tf_tensor(mesh, inputs[2], mtf.Shape(dims[:2]))
      context = models.context(
          mesh, dims, case.causal, variable_dtype,
          position=mtf.range(mesh, dims[1], tf.int32),
          position_is_default=True, inputs=segments,
          sequence_id=segments if case.segments == 'several' else None)
      y = _layer(case).call(context, x)
      gradients = mtf.gradients(
          [y], [x, *(v.outputs[0] for v in mesh.graph.trainable_variables)],
          [dy])
      lowering = mtf.Lowering(mesh.graph, {mesh: graph.placement('', '')})
      outputs = [lowering.export_to_tf_tensor(t) for t in [y, *gradients]
                 if t is not None]  # Of a filter that is not used.
  return program.without_counts(program.to_hlo(tf_graph, inputs, outputs))


def _layer(case):
  sizes = {'num_heads': case.heads, 'd_kv': case.d_kv}
  if case.lowering == ATTENTION:
    return transformer_layers.SelfAttention(
        num_heads=case.heads, key_value_size=case.d_kv)
  make = layers.DynamicConv if case.filters == 'dynamic' else layers.LightConv
  # Of static filters nothing is left; a dynamic one has its own product.
  lowering = {PRODUCTS: _nothing if case.filters == 'light' else _first_tap}
  return make(**sizes, filter_size=case.taps, num_filters=case.num_filters,
              dilation_rate=case.dilation,
              lowering=lowering.get(case.lowering, case.lowering))


def _nothing(x, *args):
  """Takes the place of a convolution."""
  del args
  return x


def _first_tap(x, filters, *args):
  """Takes the place of a convolution: multiplies by the first tap alone."""
  del args
  first = mtf.reduce_first(filters, reduced_dim=filters.shape.dims[-1])
  filters_dim, heads_dim = first.shape.dims[-1], x.shape.dims[-2]
  grouped = mtf.replace_dimensions(x, heads_dim, [
      filters_dim,
      mtf.Dimension('of_filter', heads_dim.size // filters_dim.size)])
  return mtf.reshape(grouped * first, x.shape)


def measure(case, topology='v3:2x2', cache=None) -> dict:
  """Compiles a block for one core.

  Args:
    case: a Case.
    topology: libtpu's name.
    cache: see compiler.compile_program.

  Returns:
    A row of the table: the case, cycles and bytes, and what has no estimate,
    with its bundles: instructions of the program that was made, of which a core
    does one in a cycle or takes longer.
  """
  compiled = compiler.compile_program(
      build(case), topology, 1, cache, bundles=True)
  rows = estimates.rows(compiled.text)
  found = estimates.total(rows)
  return {
      'device': compiled.device, **case._asdict(), 'cycles': found.cycles,
      'bytes': found.bytes, 'not_estimated': ' '.join(
          f'{name}:{times}' for name, times in sorted(found.missing.items())),
      'not_estimated_bytes': found.missing_bytes,
      'not_estimated_bundles': missing_bundles(rows, compiled.bundles),
      'temporaries': compiled.temporaries,
      'compile_seconds': compiled.seconds}


def missing_bundles(rows, bundles) -> Optional[int]:
  """Sums up the bundles of what has no estimate of cycles.

  Args:
    rows: estimates.Rows.
    bundles: a dict from their labels. Of operations that are alike the compiler
      tells one.

  Returns:
    Their number; None if nothing is known of one.
  """
  alike = {(row.opcode, row.bytes): bundles[row.label] for row in rows
           if bundles.get(row.label) is not None}
  missing = [(row.opcode, row.bytes) for row in rows if row.cycles is None]
  if not set(missing) <= set(alike):
    return None
  return sum(alike[operation] for operation in missing)


def main():
  """Prints the table and writes it, row by row."""
  parser = command_line.Parser(description=__doc__.partition('\n')[0])
  parser.add_argument('--topology', default='v3:2x2')
  parser.add_argument('--taps', type=int, nargs='+', default=TAPS)
  parser.add_argument('--filters', nargs='+', default=['light', 'dynamic'])
  parser.add_argument('--segments', nargs='+', default=['one', 'several'])
  parser.add_argument('--lowerings', dest='names', nargs='+',
                      default=conv_lowerings.NAMES,
                      choices=conv_lowerings.NAMES)
  parser.add_argument('--dtype', default='bfloat16', choices=_DTYPES)
  for name in ('dilation', 'rows', 'length', 'heads', 'd_kv', 'num_filters'):
    parser.add_argument(
        f'--{name}', type=int, default=Case._field_defaults[name])
  parser.add_argument('--causal', action='store_true')
  parser.add_argument('--cache', help='see mtf_conv bench tpu')
  parser.add_argument('--out', help='a file for the table, CSV; rows are added')
  args = vars(parser.parse_args())
  topology, cache, out = (
      args.pop(name) for name in ('topology', 'cache', 'out'))
  tf.enable_resource_variables()
  tf.logging.set_verbosity(tf.logging.ERROR)
  for case in cases(**args):
    row = measure(case, topology, cache)
    print(*row.values(), flush=True)
    if out:
      _add(out, row)


def _add(path, row):
  """Adds a row to a CSV file, in place of one of the same case."""
  frame = pd.DataFrame([row])
  if os.path.exists(path):
    frame = pd.concat([pd.read_csv(path, keep_default_na=False), frame])
  frame = frame.astype({name: str for name in ('causal', 'not_estimated')})
  frame.drop_duplicates(['device', *Case._fields], keep='last').to_csv(
      path, index=False)


if __name__ == '__main__':
  main()
