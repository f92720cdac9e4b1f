"""Builds Mesh TensorFlow graphs and models on virtual CPU devices."""

import os

from mtf_conv import compat

compat.install()

import gin  # noqa: E402
import mesh_tensorflow as mtf  # noqa: E402
import mesh_tensorflow.optimize  # noqa: E402, F401
from mesh_tensorflow.transformer import transformer  # noqa: E402
import numpy as np  # noqa: E402
import pkg_resources  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

from mtf_conv import gin_files  # noqa: E402

LAYOUT = 'batch:batch,d_ff:model,heads:model,vocab:model'


def parse_gin(files, bindings=()):
  """Parses gin files as T5's main does: unknown names are errors."""
  gin.clear_config()
  import t5
  for folder in (
      pkg_resources.resource_filename('mesh_tensorflow.transformer', 'gin'),
      os.path.join(os.path.dirname(t5.__file__), 'models', 'gin'),
      gin_files.gin_folder()):
    gin.add_config_file_search_path(folder)
  gin.parse_config_files_and_bindings(
      ['defaults.gin', *files], list(bindings), finalize_config=False)


def lower(graph, mesh, mesh_shape='', layout=LAYOUT):
  """Lowers an mtf graph onto as many CPU devices as the mesh has."""
  mesh_shape = mtf.convert_to_shape(mesh_shape)
  devices = [f'cpu:{i}' for i in range(mesh_shape.size)]
  mesh_impl = mtf.placement_mesh_impl.PlacementMeshImpl(
      mesh_shape, mtf.convert_to_layout_rules(layout), devices)
  return mtf.Lowering(graph, {mesh: mesh_impl})


def session(devices=1):
  """A TensorFlow session with so many virtual CPU devices."""
  return tf.Session(config=tf.ConfigProto(
      device_count={'CPU': devices}, intra_op_parallelism_threads=2))


def run_op(fn, arrays, mesh_shape='', layout=LAYOUT):
  """Runs an mtf function of named arrays, and its gradients.

  Args:
    fn: a function of mtf Tensors that returns one.
    arrays: a list of (NumPy array, list of Dimensions).
    mesh_shape: a string such as 'batch:2;model:2'.
    layout: a string of layout rules.

  Returns:
    (y, the gradients of sum(y * cos(index)) for the float arrays, lowering)
  """
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    inputs = [
        mtf.import_tf_tensor(mesh, tf.constant(array), mtf.Shape(dims))
        for array, dims in arrays]
    y = fn(*inputs)
    # A weight that tells every element from every other.
    weights = mtf.import_tf_tensor(
        mesh, tf.constant(output_weights(y.shape.to_integer_list), tf.float32),
        y.shape)
    loss = mtf.reduce_sum(mtf.cast(y, tf.float32) * weights)
    floats = [t for t in inputs if t.dtype.is_floating]
    grads = mtf.gradients([loss], floats)
    lowering = lower(graph, mesh, mesh_shape, layout)
    fetched = [tf.cast(lowering.export_to_tf_tensor(t), tf.float32)
               for t in [y, *grads]]
    with session(mtf.convert_to_shape(mesh_shape).size) as sess:
      y, *grads = sess.run(fetched)
  return y, grads, lowering


def output_weights(shape):
  """The weights by which run_op sums up y."""
  return np.cos(np.arange(np.prod(shape)).reshape(shape)).astype('float32')


def counters(lowering):
  """The lowering's counters, each added up."""
  total = {}
  for name, value in lowering.counters:
    total[name] = total.get(name, 0) + value
  return total
