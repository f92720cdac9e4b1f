"""The private names of other libraries that docs/patches.md lists are there."""

import inspect
import re
from importlib import metadata

import gin
import mesh_tensorflow as mtf
import pages
import pytest
import seqio
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util
from tensorflow_datasets.core.download import resource
from tensorflow_estimator.python.estimator.tpu import tpu_context

from mtf_conv import vocabulary

PAGE = (pages.ROOT / 'docs' / 'patches.md').read_text()
ESTIMATOR = tf.estimator.tpu.TPUEstimator
# The name, the distribution it is of, and what has it: an object, or an object
# in whose source it is set.
NAMES = [
    ('register_tensor_conversion_function', 'tensorflow', ops),
    ('_create_global_step', 'tensorflow', ESTIMATOR),
    ('_config', 'tensorflow', ESTIMATOR.__mro__[1].__init__),
    ('_session_config', 'tensorflow', ESTIMATOR.__mro__[1].__init__),
    ('_ctx', 'tensorflow', ESTIMATOR.__init__),
    ('_use_tpu', 'tensorflow', tpu_context._InternalTPUContext.__init__),
    ('GraphOrParentsInXlaContext', 'tensorflow', control_flow_util),
    *[(name, 'mesh-tensorflow', transformer.VocabEmbedding.__init__)
      for name in ('_embedding_weights', '_vocab_dim', '_output_dim',
                   '_scale_variable_like_classifier_weights')],
    *[(f'_sublayers_{part}', 'mesh-tensorflow', transformer.LayerStack.__init__)
      for part in ('initial', 'per_layer', 'final')],
    ('_loss_fn', 'mesh-tensorflow', transformer.Unitransformer.__init__),
    ('_compute_loss', 'mesh-tensorflow', transformer.Unitransformer),
    ('_call_internal', 'mesh-tensorflow', transformer.Unitransformer),
    ('_shared_params', 'mesh-tensorflow', transformer.Bitransformer),
    ('beam_search', 'mesh-tensorflow', mtf.beam_search),
    ('_depthwise_conv1d_hack', 'mesh-tensorflow', mtf.layers),
    *[(name, 'seqio', seqio.SentencePieceVocabulary)
      for name in ('sentencepiece_model_file', 'sp_model', 'tokenizer')],
    ('get_dl_fname', 'tensorflow-datasets', resource),
    ('_REGISTRY', 'gin-config', gin.config),
]


@pytest.mark.parametrize('name, distribution, where', NAMES,
                         ids=[name for name, *_ in NAMES])
def test_a_private_name_is_there(name, distribution, where):
  assert re.search(rf'\b{name}\b', PAGE), f'{name} is not on the page'
  there = hasattr(where, name) or (
      inspect.isfunction(where)
      and re.search(rf'self\.{name}\b.*=', inspect.getsource(where)))
  version = metadata.version(distribution)
  assert there, f'{distribution} {version} has no {name}: see docs/patches.md'


def test_properties_are_those_of_seqio():
  for name in ('sentencepiece_model_file', 'sp_model', 'tokenizer'):
    assert isinstance(
        getattr(seqio.SentencePieceVocabulary, name), property), name
    assert name in vars(vocabulary.ConfiguredVocabulary)


def test_the_global_step_is_the_first_variable():
  """Whoever creates it can say how all that follow are made."""
  source = inspect.getsource(ESTIMATOR.__mro__[1]._train_model_default)
  assert source.index('global_step') < source.index('_call_model_fn')


def test_the_loss_of_a_unitransformer_is_asked_for_first():
  source = inspect.getsource(transformer.Unitransformer._compute_loss)
  assert 'if self._loss_fn:' in source


def test_every_private_name_is_on_the_page():
  package = pages.ROOT / 'mtf_conv'
  of_others = re.compile(r'(?<!self)(?<!cls)\.(_[a-z]\w+)\b')
  ours = re.compile(r'(?:def|class) (_\w+)|^\s*(?:self\.)?(_\w+) =', re.M)
  found, defined = {}, {'_asdict', '_exit', '_forward'}
  for path in [*package.rglob('*.py'), *(pages.ROOT / 'tasks').glob('*.py')]:
    text = path.read_text()
    for name in of_others.findall(text):
      found.setdefault(name, path)
    defined |= {name for names in ours.findall(text) for name in names}
  for name, path in found.items():
    assert name in defined or re.search(rf'\b{name}\b', PAGE), (
        f'{path}: {name} is not in docs/patches.md')
