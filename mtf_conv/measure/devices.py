"""What a device of a mesh has to do and to keep, against one device alone.

Counted in the graph of a training step as Mesh TensorFlow splits it; nothing
is run or timed.

    python -m mtf_conv.measure.devices --out docs/results/devices.csv
"""

import argparse

import mesh_tensorflow as mtf
import pandas as pd

from mtf_conv.base import gin_files
from mtf_conv.measure import graph, models

MESHES = ('', 'batch:8', 'batch:4;model:2', 'model:4')
LAYOUT = 'batch:batch,d_ff:model,heads:model,vocab:model'
COUNTS = ('multiply_adds', 'variables', 'tensors')


def count(path, mesh_shape, batch, inputs, vocabulary=models.VOCABULARY,
          size=()) -> dict:
  """Counts a training step's share of one device.

  Args:
    path: the model's gin file.
    mesh_shape: such as 'batch:4;model:2'; '' is one device.
    batch: rows in the batch of all devices.
    inputs: the length of inputs; targets are as T5's span corruption has them.
    vocabulary: how many ids there are.
    size: gin bindings that come after the file.

  Returns:
    A dict: multiply_adds, of all einsums; variables, elements of parameters
    and of Adafactor's slots; tensors, elements of all that a step computes,
    which is what it keeps at most; allreduce, elements of tensors that are
    summed over devices; parameters, elements of all parameters of the model.
  """
  models.parse([path], [*models.AS_ON_TPU, *size])
  with graph.Builder() as builder:
    _, gradients = models.training(
        builder, batch, inputs, models.targets_length(inputs), vocabulary)
    models.optimize(builder, gradients)
    lowering = builder.lower(graph.placement(mesh_shape, LAYOUT))
    mesh_impl = lowering.mesh_impl(builder.mesh)
    devices = mtf.convert_to_shape(mesh_shape).size
    return {
        'multiply_adds': _sum(lowering, 'einsum') / devices,
        'variables': sum(mesh_impl.laid_out_size(v.shape)
                         for v in builder.graph.all_variables) / devices,
        'tensors': _sum(lowering, 'output') / devices,
        'allreduce': _sum(lowering, 'allreduce') / devices,
        'parameters': sum(v.size for v in builder.graph.trainable_variables)}


def _sum(lowering, kind):
  """Adds up counters: those of that name, and kind/..."""
  return sum(value for name, value in lowering.counters
             if name.split('/')[0] == kind)


def table(paths, batch, inputs, meshes=MESHES, **options) -> pd.DataFrame:
  """Counts models on meshes.

  Args:
    paths: the models' gin files.
    batch: rows in the batch of all devices.
    inputs: the length of inputs.
    meshes: mesh shapes.
    **options: of count.

  Returns:
    A row for each: the share of a device as a ratio to that of one device,
    and allreduce as a ratio to the parameters of the model.
  """
  rows = []
  for path in paths:
    alone = count(path, '', batch, inputs, **options)
    for mesh_shape in meshes:
      found = count(path, mesh_shape, batch, inputs, **options)
      rows.append({
          'model': models.title(path), 'mesh': mesh_shape or 'one device',
          'devices': mtf.convert_to_shape(mesh_shape).size,
          **{name: found[name] / alone[name] for name in COUNTS},
          'allreduce': found['allreduce'] / found['parameters']})
  return pd.DataFrame(rows)


def main():
  """Prints the table and writes it."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('model', nargs='*')
  parser.add_argument('--size', default='tiny')
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--inputs', type=int, default=128)
  parser.add_argument('--mesh_shape', nargs='+', default=MESHES)
  parser.add_argument('--out', help='a file for the table, CSV')
  args = parser.parse_args()
  frame = table([path for name in
                 args.model or gin_files.model_names(args.size)
                 for path in models.resolve(name, [args.size])],
                args.batch, args.inputs, args.mesh_shape)
  print(frame.to_string(index=False, float_format='{:.3f}'.format))
  if args.out:
    frame.to_csv(args.out, index=False, float_format='%.4f')


if __name__ == '__main__':
  main()
