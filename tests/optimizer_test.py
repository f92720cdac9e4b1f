"""Adafactor against T5's."""

import gin
import mesh_tensorflow as mtf
import mesh_tensorflow.optimize
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv import optimizer


@pytest.fixture(autouse=True)
def no_bindings():
  gin.clear_config()
  yield
  gin.clear_config()


def after_steps(cls, shape, mesh_shape='', steps=3, **options):
  """A variable and its slots after steps, and how many tensors were large."""
  dims = [mtf.Dimension(*d) for d in zip(
      ('vocab', 'd_model', 'other'), shape)]
  with tf.Graph().as_default():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    rng = np.random.RandomState(0)
    variable = mtf.get_variable(
        mesh, 'weights', mtf.Shape(dims), initializer=tf.constant_initializer(
            rng.randn(*shape)))
    array = tf.placeholder(tf.float32, shape)
    gradient = mtf.import_tf_tensor(mesh, array, mtf.Shape(dims))
    updates = cls(learning_rate=0.05, decay_rate=0.7, **options).apply_grads(
        [gradient], [graph.trainable_variables[0]])
    del variable
    large = sum(t.shape.size >= np.prod(shape)
                for op in graph.operations for t in op.outputs)
    lowering = harness.lower(graph, mesh, mesh_shape,
                             'vocab:model,d_model:batch')
    updates = [lowering.lowered_operation(op) for op in updates]
    masters = {v.op.name: v for v in tf.global_variables()}
    with harness.session(mtf.convert_to_shape(mesh_shape).size) as sess:
      sess.run(tf.global_variables_initializer())
      sess.run(lowering.copy_masters_to_slices())
      for step in range(steps):
        # The second is clipped.
        sess.run(updates, {array: rng.randn(*shape) * (1 + 99 * (step == 1))})
      sess.run(lowering.copy_slices_to_masters())
      return sess.run(masters), large


@pytest.mark.parametrize('shape, mesh_shape', [
    ((256, 128), ''), ((128, 256), ''), ((128, 4, 256), ''), ((64, 256), ''),
    ((256,), ''), ((256, 128), 'model:2'), ((256, 128), 'batch:2;model:2')])
def test_agrees_with_t5(shape, mesh_shape):
  found, _ = after_steps(optimizer.Adafactor, shape, mesh_shape)
  expected, _ = after_steps(
      mesh_tensorflow.optimize.AdafactorOptimizer, shape, mesh_shape)
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=1e-6,
                               err_msg=name)


@pytest.mark.parametrize('options', [
    {'beta1': 0.9}, {'clipping_threshold': None}, {'factored': False},
    {'multiply_by_parameter_scale': False},
    {'exclude_from_parameter_scale': ['weights']}, {'stock': True},
    {'stacked_dim_names': ['vocab']}])
def test_options_of_t5(options):
  found, _ = after_steps(optimizer.Adafactor, (256, 128), **options)
  options.pop('stock', None)
  expected, _ = after_steps(
      mesh_tensorflow.optimize.AdafactorOptimizer, (256, 128), **options)
  for name, array in expected.items():
    np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=1e-6,
                               err_msg=name)


def test_bindings_for_t5_s_hold():
  gin.parse_config('optimize.AdafactorOptimizer.beta1 = 0.9')
  found, _ = after_steps(optimizer.Adafactor, (256, 128))
  assert 'weights_slot_m' in found


def test_makes_fewer_large_tensors():
  _, found = after_steps(optimizer.Adafactor, (256, 128))
  _, stock = after_steps(
      mesh_tensorflow.optimize.AdafactorOptimizer, (256, 128))
  assert found < 0.7 * stock, (found, stock)
