"""What a TPU would compile, as far as TensorFlow tells without one.

T5's own model function is built as TPUEstimator builds it: Mesh TensorFlow's
SIMD implementation, replicated by tpu.replicate over the cores of a topology
that is made up. Nothing is compiled or run: every operation of the program is
looked at.

  python -m mtf_conv.measure.tpu.xla_operations --out docs/results/tpu_graph.csv
"""

import argparse
import collections
import functools
import tempfile
import types
from typing import NamedTuple

import mesh_tensorflow as mtf
import numpy as np
import pandas as pd
import tensorflow.compat.v1 as tf
from absl import flags
from mesh_tensorflow.transformer import (
  learning_rate_schedules,
  utils,
)
from tensorflow.python.framework import kernels
from tensorflow.python.tpu import device_assignment, topology, tpu

from mtf_conv.base import gin_files
from mtf_conv.measure import models

MESH_SHAPE = 'batch:16;model:2'
LAYOUT = 'batch:batch,d_ff:model,heads:model,vocab:model'
BATCH, INPUTS = 128, 512
DECODE_LENGTH = 64
PHASES = ('train', 'decode')
_CORES_PER_CHIP, _CORES_PER_HOST = 2, 8

# The bridge to XLA rewrites these; they reach no kernel.
_REWRITTEN = {
    'TPUReplicateMetadata', 'TPUReplicatedInput', 'TPUReplicatedOutput',
    'Enter', 'Exit', 'Merge', 'Switch', 'NextIteration', 'LoopCond',
    'ControlTrigger'}
# Their kernels are in the TPU's own runtime: no package for CPUs has them.
_COLLECTIVES = {'CrossReplicaSum', 'AllToAll', 'CollectivePermute'}
_HOST = ('PyFunc', 'EagerPyFunc', 'Print', 'Assert', 'Summary', 'Outfeed',
         'Infeed', 'HostCompute', 'RecvAtHost', 'SendFromHost', 'Iterator')


class Findings(NamedTuple):
  """Of one program.

  Attributes:
    operations: how many it has.
    types: a Counter of their types.
    no_kernel: types that XLA cannot compile, with the dtypes they were asked
      for.
    dynamic: names of operations with a shape that is not fully known.
    host: names of operations that transfer to or from the host.
    depthwise: names of depthwise convolutions.
    collectives: how many transfers between cores there are.
  """

  operations: int
  types: collections.Counter
  no_kernel: list
  dynamic: list
  host: list
  depthwise: list
  collectives: int


def build(path, phase, mesh_shape=MESH_SHAPE, batch=BATCH, inputs=INPUTS,
          vocabulary=models.VOCABULARY, size=(), layout=LAYOUT,
          replicate=tpu.replicate, decode_length=DECODE_LENGTH) -> tf.Graph:
  """Builds what T5 builds for a TPU.

  Args:
    path: the model's gin file.
    phase: 'train' or 'decode', greedily.
    mesh_shape: over all cores, eight on a host.
    batch: rows in a batch.
    inputs: the length of inputs; targets are as T5's span corruption has them.
    vocabulary: how many ids there are.
    size: gin bindings that come after the file.
    layout: layout rules.
    replicate: what puts the program on all cores; called as tpu.replicate.
    decode_length: how many ids are decoded.

  Returns:
    The graph, with the program and what the host does around it.
  """
  models.parse([path], [
      "utils.get_variable_dtype.activation_dtype = 'bfloat16'",
      'Bitransformer.decode.beam_size = 1',
      f'Bitransformer.decode.max_decode_length = {decode_length}', *size])
  mesh_shape = mtf.convert_to_shape(mesh_shape)
  assignment = _device_assignment(mesh_shape.size)
  lengths = {'inputs': inputs, 'targets': models.targets_length(inputs)}
  train = phase == 'train'
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Mesh TensorFlow reads its own.
  graph = tf.Graph()
  with graph.as_default(), tempfile.TemporaryDirectory() as folder:
    with tf.variable_scope('', use_resource=True):  # As TPUEstimator does.
      tf.train.get_or_create_global_step()
    features = {
        name: tf.placeholder(tf.int32, [batch, lengths[name.split('_')[0]]])
        for name in (['inputs', 'targets', 'inputs_segmentation',
                      'targets_segmentation', 'inputs_position',
                      'targets_position'] if train else ['inputs'])}
    model_fn = utils.tpu_estimator_model_fn(
        model_type='bitransformer', transformer_model=models.make(vocabulary),
        vocabulary=(None, None), model_dir=folder, use_tpu=True,
        mesh_shape=mesh_shape, layout_rules=mtf.convert_to_layout_rules(layout),
        batch_size=batch, sequence_length=lengths, autostack=True,
        keep_checkpoint_max=1, save_checkpoints_steps=1000,
        learning_rate_schedule=functools.partial(
            learning_rate_schedules.truncated_rsqrt, total_train_steps=1000),
        optimizer=mtf.optimize.AdafactorOptimizer)
    hosts = -(-mesh_shape.size // _CORES_PER_HOST)
    context = types.SimpleNamespace(
        num_hosts=hosts, num_replicas=mesh_shape.size,
        device_assignment=assignment,
        tpu_host_placement_function=(
            lambda host_id: f'/job:worker/task:{host_id}/device:CPU:0'))

    def program(*values):
      spec = model_fn(
          dict(zip(features, values)), None,
          tf.estimator.ModeKeys.TRAIN if train
          else tf.estimator.ModeKeys.PREDICT, {'context': context})
      if not train:
        return spec.predictions['outputs']
      with tf.control_dependencies([spec.train_op]):
        return tf.identity(spec.loss)

    # T5 gives every core the whole batch, of which it takes its part.
    replicate(program, [list(features.values())] * mesh_shape.size,
              device_assignment=assignment)
  return graph


def _device_assignment(cores):
  """One replica on every core of chips in a square, or nearly."""
  chips = cores // _CORES_PER_CHIP
  width = 1
  while width * width < chips:
    width *= 2
  shape = [width, chips // width, 1, _CORES_PER_CHIP]
  coordinates = np.stack(np.meshgrid(
      *map(np.arange, shape), indexing='ij'), -1)
  return device_assignment.device_assignment(
      topology.Topology(mesh_shape=shape, device_coordinates=coordinates
                        .reshape([-1, min(cores, _CORES_PER_HOST), 4])),
      num_replicas=cores)


def examine(graph) -> Findings:
  """Looks at every operation that a TPU would have to compile."""
  operations = [op for op in graph.get_operations() if _in_program(op)]
  compilable = _xla_kernels()
  return Findings(
      operations=len(operations),
      types=collections.Counter(op.type for op in operations),
      no_kernel=sorted({_signature(op) for op in operations
                        if not _has_kernel(op, compilable)}),
      dynamic=[op.name for op in operations
               if not all(t.shape.is_fully_defined() for t in op.outputs)],
      host=[op.name for op in operations if _on_host(op)],
      depthwise=[op.name for op in operations if 'Depthwise' in op.type],
      collectives=sum(op.type in _COLLECTIVES for op in operations))


def _in_program(op):
  return '_tpu_replicate' in op.node_def.attr


def _on_host(op):
  return ('_xla_outside_compilation' in op.node_def.attr or
          any(word in op.type for word in _HOST))


def _xla_kernels():
  """The kernels of XLA's compiler: a dict from types to lists of KernelDefs.

  They are registered when something is compiled for the first time. Those of
  CPUs are what TensorFlow's packages have; most are shared with TPUs.
  """
  with tf.Graph().as_default(), tf.Session() as sess:
    sess.run(tf.xla.experimental.compile(lambda x: x + 1, [tf.constant(1.0)]))
  found = collections.defaultdict(list)
  for kernel in kernels.get_all_registered_kernels().kernel:
    if kernel.device_type == 'XLA_CPU_JIT':
      found[kernel.op].append(kernel)
  return found


def _has_kernel(op, compilable):
  if op.type in _REWRITTEN or op.type in _COLLECTIVES:
    return True
  return any(_fits(op, kernel) for kernel in compilable.get(op.type, ()))


def _fits(op, kernel):
  for constraint in kernel.constraint:
    wanted = op.node_def.attr[constraint.name]
    asked = [wanted.type] if wanted.type else wanted.list.type
    if not set(asked) <= set(constraint.allowed_values.list.type):
      return False
  return True


def _signature(op):
  dtypes = [t.dtype.base_dtype.name for t in [*op.inputs, *op.outputs]]
  return f'{op.type}({", ".join(dict.fromkeys(dtypes))})'


def table(paths, say=print, **shapes) -> pd.DataFrame:
  """Builds and examines models.

  Args:
    paths: their gin files.
    say: is told of each program.
    **shapes: of build.

  Returns:
    A row for each model and phase: how many operations it has, and how many of
    those that should not be there.
  """
  rows = []
  for path in paths:
    for phase in PHASES:
      found = examine(build(path, phase, **shapes))
      rows.append({
          'model': models.title(path), 'phase': phase,
          **{name: len(value) if isinstance(value, (list, dict)) else value
             for name, value in found._asdict().items()}})
      say(rows[-1])
      for name in ('no_kernel', 'dynamic', 'host', 'depthwise'):
        for line in getattr(found, name)[:10]:
          say(f'  {name}: {line}')
  return pd.DataFrame(rows)


def main():
  """Prints the table and writes it."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('model', nargs='*')
  parser.add_argument('--size', default='base')
  parser.add_argument('--mesh_shape', default=MESH_SHAPE)
  parser.add_argument('--out', help='a file for the table, CSV')
  args = parser.parse_args()
  tf.disable_v2_behavior()  # As T5's main does.
  frame = table([path for name in
                 args.model or gin_files.model_names(args.size)
                 for path in models.resolve(name, [args.size])],
                mesh_shape=args.mesh_shape)
  print(frame.to_string(index=False))
  if args.out:
    frame.to_csv(args.out, index=False)


if __name__ == '__main__':
  main()
