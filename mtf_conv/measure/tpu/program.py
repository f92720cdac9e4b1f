"""A step of training as HLO, the language of XLA's compilers.

The graph is the one of `xla_operations`: T5's own model function with Mesh
TensorFlow's SIMD implementation, for one core of a slice. TensorFlow's package
for CPUs translates it. Three things differ from what TPUEstimator compiles:

  * A core's slice of a variable is made once, and not once for each core.
  * A transfer between cores, whose kernel no package for CPUs has, is a mark,
    which becomes the same operation of HLO.
  * The number of a core is HLO's replica id instead of an input.

  python -m mtf_conv.measure.tpu.program OUT.pb < ARGUMENTS.json

Everything is built in a process of its own: TensorFlow has to be eager there,
and the verbs of mtf_conv are not.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile

import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow import simd_mesh_impl
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.compiler.xla.service import hlo_pb2
from tensorflow.python.compiler.xla import xla

from mtf_conv.base import errors, files
from mtf_conv.measure.tpu import xla_operations

# Custom calls that stand for transfers: their names begin so.
_MARK = 'MTF_CONV_'


def export(path, module_import=(), **shapes) -> bytes:
  """Builds a step of training in another process.

  Args:
    path: the model's gin file.
    module_import: modules of the user that it needs.
    **shapes: of xla_operations.build; phase is 'train' when not given.

  Returns:
    A serialized HloModuleProto. All replicas run it.

  Raises:
    errors.UserError: it cannot be built; in the words of who could not.
  """
  with tempfile.TemporaryDirectory() as folder:
    out = os.path.join(folder, 'step.pb')
    result = subprocess.run(
        [sys.executable, '-m', 'mtf_conv.measure.tpu.program', out],
        input=json.dumps({'path': path, 'module_import': list(module_import),
                          **shapes}),
        env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3',
             'CUDA_VISIBLE_DEVICES': '-1'},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode:
      raise errors.UserError(
          why_not(path, result.returncode, result.stderr))
    with open(out, 'rb') as f:
      return f.read()


def why_not(path, code, stderr) -> str:
  """Says in one line why a step was not built.

  Args:
    path: the model's gin file.
    code: the exit code of the process.
    stderr: what it said.
  """
  if code < 0:
    return (f'{path}: building the step was killed (signal {-code}): is there '
            'memory for it?')
  lines = [line for line in stderr.splitlines() if line.strip()]
  said = errors.user_message(RuntimeError(stderr)) or lines[-1:]
  return (f'{path}: the step cannot be built: '
          f'{said if isinstance(said, str) else "".join(said)}')


def translate(path, phase='train', **shapes) -> bytes:
  """Builds a step of training in this process, which has to be eager.

  Args:
    path: the model's gin file.
    phase: 'train'; or 'decode', to build that instead.
    **shapes: of xla_operations.build.

  Returns:
    See export.
  """
  replicated = _OneReplica()
  with _as_one_program():
    graph = xla_operations.build(
        path, phase, replicate=replicated, **shapes)
  return with_transfers(to_hlo(graph, replicated.inputs, [replicated.output]))


class _OneReplica:
  """Takes the place of tpu.replicate: one program, in XLA's context.

  Attributes:
    inputs: the placeholders that the program was given.
    output: what it returned.
  """

  def __call__(self, program, inputs, device_assignment):
    """Builds the program."""
    self.inputs = inputs[0]
    with on_tpu():
      self.output = program(*self.inputs)


class TPUReplicateContext(xla.XLACompileContext):
  """Takes the place of TensorFlow's class of this name."""


@contextlib.contextmanager
def on_tpu():
  """Operations are built as for a TPU: see conv_lowerings.on_tpu."""
  context = TPUReplicateContext('step', tf.no_op())
  context.Enter()
  try:
    yield
  finally:
    context.Exit()


@contextlib.contextmanager
def _as_one_program():
  """Mesh TensorFlow's SIMD implementation makes what this module says."""
  impl = simd_mesh_impl.SimdMeshImpl
  replaced = [(simd_mesh_impl, 'tpu_ops', _Transfers),
              (impl, 'LaidOutVariable', _one_variable(impl.LaidOutVariable))]
  kept = [getattr(owner, name) for owner, name, _ in replaced]
  try:
    for owner, name, value in replaced:
      setattr(owner, name, value)
    yield
  finally:
    for (owner, name, _), value in zip(replaced, kept):
      setattr(owner, name, value)


def _one_variable(base):
  class OneVariable(base):
    """A variable's slice on one core."""

    def __init__(self, variable, mesh_impl):
      self._variable, self._mesh_impl = variable, mesh_impl
      shape = mesh_impl.slice_shape(variable.outputs[0].shape)
      with tf.device(None), mtf.utils.outside_all_rewrites():
        slice_variable = tf.Variable(
            tf.zeros(shape, variable.slice_dtype), trainable=False,
            collections=['TPU_VAR'], dtype=variable.slice_dtype,
            name=f'{variable.name}_slice', expected_shape=shape,
            use_resource=True)
        self._copy_master_to_slices = tf.no_op()
        self._copy_slices_to_master = tf.no_op()
      self._laid_out_tensor = mesh_impl.LaidOutTensor([slice_variable])

  return OneVariable


class _Transfers:
  """Takes the place of TensorFlow's tpu_ops."""

  @staticmethod
  def cross_replica_sum(x, group_assignment):
    """Returns the sum over the cores of a group."""
    return _mark('all-reduce', x, group_assignment)

  @staticmethod
  def all_to_all(x, concat_dimension, split_dimension, split_count,
                 group_assignment):
    """Returns the parts that all cores of a group have for this one."""
    shape = x.shape.as_list()
    part = shape[split_dimension] // split_count
    x = tf.reshape(x, [*shape[:split_dimension], split_count, part,
                       *shape[split_dimension + 1:]])
    axes = list(range(len(shape) + 1))
    axes.remove(split_dimension)
    x = _mark('all-to-all', tf.transpose(x, [split_dimension, *axes]),
              group_assignment)
    # The cores' parts come first; they belong before those of this one.
    shape[split_dimension] = part
    axes = list(range(1, len(shape) + 1))
    x = tf.transpose(
        x, [*axes[:concat_dimension], 0, *axes[concat_dimension:]])
    shape[concat_dimension] *= split_count
    return tf.reshape(x, shape)

  @staticmethod
  def collective_permute(x, source_target_pairs):
    """Is not there: no layer of T5's or of ours sends in this way."""
    raise NotImplementedError('collective_permute')

  @staticmethod
  def tpu_replicated_input(values, name=None):
    """Returns the one of values that is this core's."""
    return tf.gather(tf.constant(values, tf.int32),
                     gen_xla_ops.xla_replica_id(), name=name)


def _mark(opcode, x, groups):
  return gen_xla_ops.xla_custom_call(
      [x], _MARK + opcode,
      ';'.join(','.join(map(str, group)) for group in groups),
      x.dtype, x.shape)


def to_hlo(graph, inputs, outputs) -> bytes:
  """Translates a part of a graph; this process has to be eager.

  Args:
    graph: a tf.Graph, with resource variables.
    inputs: placeholders of it.
    outputs: what is computed.

  Returns:
    A serialized HloModuleProto. Its parameters are the inputs and variables;
    it gives the outputs and the variables that were assigned to.
  """
  names = [output.name for output in outputs]
  definition = tf.graph_util.extract_sub_graph(
      graph.as_graph_def(), [output.op.name for output in outputs])
  handles, replaced = {}, {placeholder.op.name for placeholder in inputs}
  for node in definition.node:
    node.device = ''
    for name in [name for name in node.attr if name.startswith('_')]:
      del node.attr[name]
    if node.op == 'VarHandleOp':
      shape = [dim.size for dim in node.attr['shape'].shape.dim]
      handles[node.name] = tf.compat.v2.Variable(tf.zeros(
          shape, tf.as_dtype(node.attr['dtype'].type)))
  replaced |= set(handles)
  present = {node.name for node in definition.node}
  kept = [node for node in definition.node if node.name not in replaced]
  for node in kept:
    # What is replaced can be read, and not waited for.
    read = [name for name in node.input if name.lstrip('^') not in replaced
            or not name.startswith('^')]
    del node.input[:]
    node.input.extend(read)
  definition = tf.GraphDef(node=kept, library=definition.library,
                           versions=definition.versions)

  @tf.function(jit_compile=True, autograph=False)
  def program(*features):
    captured = {f'{name}:0': tf.get_default_graph().capture(variable.handle)
                for name, variable in handles.items()}
    captured.update((placeholder.name, feature)
                    for placeholder, feature in zip(inputs, features))
    return tf.import_graph_def(
        definition, return_elements=names, name='',
        input_map={name: value for name, value in captured.items()
                   if name.partition(':')[0] in present})

  return program.experimental_get_compiler_ir(
      *(tf.zeros(p.shape, p.dtype) for p in inputs))('hlo_serialized')


def without_counts(program) -> bytes:
  """Gives a program names that do not count what was built before it.

  So the same one is the same bytes, wherever in a process it was built.
  """
  module = hlo_pb2.HloModuleProto.FromString(program)
  for computation in module.computations:
    if computation.id == module.entry_computation_id:
      computation.name = 'program'
  module.name = module.entry_computation_name = 'program'
  module.id = 0
  return module.SerializeToString(deterministic=True)


def with_transfers(program) -> bytes:
  """Puts HLO's transfers between cores into the place of their marks."""
  module = hlo_pb2.HloModuleProto.FromString(program)
  ids = itertools.count(1 + max(
      item.id for c in module.computations for item in [c, *c.instructions]))
  adders = {}
  for computation in module.computations:
    for instruction in computation.instructions:
      target = instruction.custom_call_target
      if not target.startswith(_MARK):
        continue
      for group in instruction.backend_config.decode().split(';'):
        instruction.replica_groups.add().replica_ids.extend(
            map(int, group.split(',')))
      for field in list(instruction.DESCRIPTOR.fields):
        if field.name.startswith('custom_call_') or field.name in (
            'backend_config', 'padding_type', 'constrain_layout',
            'operand_shapes_with_layout'):
          instruction.ClearField(field.name)
      instruction.opcode = target.removeprefix(_MARK)
      if instruction.opcode == 'all-reduce':
        kind = instruction.shape.element_type
        if kind not in adders:
          adders[kind] = _adder(kind, ids)
        instruction.called_computation_ids.append(adders[kind].id)
      else:
        instruction.dimensions.append(0)
  # A computation comes before those that call it.
  computations = [*adders.values(), *module.computations]
  del module.computations[:]
  module.computations.extend(computations)
  return module.SerializeToString(deterministic=True)


def _adder(element_type, ids):
  """Returns the computation that adds two scalars."""
  adder = hlo_pb2.HloComputationProto(
      id=next(ids), name=f'add_{element_type}')
  for number in range(2):
    parameter = adder.instructions.add(
        name=f'p{number}.{adder.id}', opcode='parameter', id=next(ids),
        parameter_number=number)
    parameter.shape.element_type = element_type
    parameter.shape.layout.SetInParent()
    adder.program_shape.parameters.add().CopyFrom(parameter.shape)
    adder.program_shape.parameter_names.append(f'p{number}')
  total = adder.instructions.add(
      name=f'add.{adder.id}', opcode='add', id=next(ids),
      operand_ids=[i.id for i in adder.instructions])
  total.shape.CopyFrom(adder.instructions[0].shape)
  adder.program_shape.result.CopyFrom(total.shape)
  adder.root_id = total.id
  return adder


def main():
  """Reads arguments from stdin and writes the program."""
  from mtf_conv.base import modules
  arguments = json.load(sys.stdin)
  modules.import_all(arguments.pop('module_import'))
  tf.enable_resource_variables()
  files.write_whole(sys.argv[1], translate(**arguments))


if __name__ == '__main__':
  main()
