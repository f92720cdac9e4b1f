"""Candidates made of Mesh TensorFlow: one device, one TensorFlow graph."""

from typing import Callable, NamedTuple

import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from mtf_conv.base import machine


class Candidate(NamedTuple):
  """One way to compute something.

  Attributes:
    forward: a function without arguments that computes the value.
    backward: one that computes the value and all gradients.
    results: one that returns these as arrays, the value first.
  """

  forward: Callable[[], object]
  backward: Callable[[], object]
  results: Callable[[], list]


def placement(mesh_shape, layout):
  """Returns the mesh implementation that T5 has without a TPU.

  Args:
    mesh_shape: such as 'batch:4;model:2'; '' for one device. The slices are
      computed where TensorFlow likes.
    layout: layout rules.
  """
  shape = mtf.convert_to_shape(mesh_shape)
  return mtf.placement_mesh_impl.PlacementMeshImpl(
      shape, mtf.convert_to_layout_rules(layout), [''] * shape.size)


def as_built() -> tf.GraphOptions:
  """Returns options of a session that computes its graph as it was built.

  Where it is run a few times, rewriting it takes longer than it saves.
  """
  return tf.GraphOptions(
      optimizer_options=tf.OptimizerOptions(
          opt_level=tf.OptimizerOptions.L0),
      rewrite_options=rewriter_config_pb2.RewriterConfig(
          disable_meta_optimizer=True))


class Builder:
  """Builds candidates, then runs them all in one session.

  Use as a context manager; `candidates` may be called when all are added.
  """

  def __init__(self):
    self._tf_graph = tf.Graph()
    self._arrays = {}
    self._added = {}

  def __enter__(self):
    self._entered = self._tf_graph.as_default()
    self._entered.__enter__()
    self.graph = mtf.Graph()
    self.mesh = mtf.Mesh(self.graph, 'mesh')
    return self

  def __exit__(self, *exception):
    self._entered.__exit__(*exception)

  def tensor(self, array, dims):
    """Returns an mtf Tensor of an array.

    It comes from a variable: TensorFlow would compute ahead what depends on
    constants alone.

    Args:
      array: a NumPy array.
      dims: a list of mtf.Dimension.
    """
    variable = tf.get_variable(
        f'array_{len(self._arrays)}', array.shape, array.dtype)
    self._arrays[variable.op.name] = array
    return mtf.import_tf_tensor(self.mesh, variable, mtf.Shape(dims))

  def add(self, name, y, dy, inputs):
    """Adds a candidate.

    Args:
      name: its name.
      y: the mtf Tensor that it computes.
      dy: the gradient of y, an mtf Tensor.
      inputs: the mtf Tensors for which y is differentiated.
    """
    self._added[name] = [y, *mtf.gradients([y], inputs, [dy])]

  def candidates(self, weights=None) -> dict[str, Candidate]:
    """Lowers what was added.

    Args:
      weights: arrays for the variables that layers made, by name.

    Returns:
      A dict from names to Candidates.
    """
    lowering = self.lower()
    exported = {name: [lowering.export_to_tf_tensor(t) for t in tensors]
                for name, tensors in self._added.items()}
    sess = self.session(lowering, weights)
    return {name: _candidate(sess, tensors)
            for name, tensors in exported.items()}

  def lower(self, mesh_impl=None) -> mtf.Lowering:
    """Lowers everything; onto one device if no mtf.MeshImpl is given."""
    with self._tf_graph.as_default():
      return mtf.Lowering(
          self.graph, {self.mesh: mesh_impl or placement('', '')})

  def session(self, lowering, weights=None) -> tf.Session:
    """Opens a session on every core there is and initializes all variables.

    Args:
      lowering: what `lower` returned, with all that is to be exported.
      weights: arrays for variables by name; others are drawn by their own
        initializers.

    Returns:
      A session.
    """
    sess = tf.Session(config=tf.ConfigProto(
        intra_op_parallelism_threads=machine.cores(),
        inter_op_parallelism_threads=machine.cores()))
    values = {**(weights or {}), **self._arrays}
    variables = tf.global_variables()
    sess.run([v.initializer for v in variables],
             {v.initializer.inputs[1]: values[v.op.name] for v in variables
              if v.op.name in values})
    sess.run(lowering.copy_masters_to_slices())
    return sess


def timed(sess, operations):
  """Returns a function that runs TensorFlow operations and nothing else.

  A session computes the operations that it is given, and copies nothing out
  of them. A tf.group of them would not do: TensorFlow prunes what has no side
  effects from a group.
  """
  return sess.make_callable(list(operations))


def _candidate(sess, tensors):
  operations = [t.op for t in tensors]
  return Candidate(timed(sess, operations[:1]), timed(sess, operations),
                   lambda: sess.run(tensors))
