"""Every gin file parses, and every model has the size that it says."""

import os
import re

import gin
import mtf_harness as harness
import pytest

from mtf_conv import tasks, training  # noqa: F401
from mtf_conv.base import gin_files  # noqa: F401

# Vocabulary of 32,000 pieces and 100 sentinels, rounded up to 128.
VOCABULARY = 32100

# Exact counts, from the shapes: three products and H filters per block.
PARAMETERS = {
    'transformer': {
        'small': 60506624, 'base': 222903552, 'large': 737668096},
    'lightconv': {
        'small': 57360552, 'base': 208747344, 'large': 687336096},
    'dynamicconv': {
        'small': 57446400, 'base': 209005056, 'large': 688023552},
    'dilatedconv': {
        'small': 57360796, 'base': 208747832, 'large': 687337072},
}


@pytest.mark.parametrize('path', gin_files.list_gin_files())
def test_parses_with_unknown_names_as_errors(path):
  text = open(os.path.join(gin_files.gin_folder(), path)).read()
  assert text.startswith('# '), 'opens with what it is for'
  # What run files require of their user, and a file that others include.
  needed = [f'{macro} = None' for macro in (
      'MIXTURE_NAME', 'PRETRAINED', 'INPUT', 'TARGETS', 'OUTPUT')]
  needed += {'models/dilatedconv.gin': ['filter_sizes = [3]'],
             'models/mixer.gin': ['mixer = None']}.get(path, [])
  harness.parse_gin([path], needed)
  gin.finalize()


@pytest.mark.parametrize('path', [
    p for p in gin_files.list_gin_files()
    if re.match(r'models/\w+\.(tiny|mini|small|base|large)\.gin', p)])
def test_parameters_are_as_the_file_says(path):
  text = open(os.path.join(gin_files.gin_folder(), path)).read()
  stated = int(re.search(r'^# ([\d,]+) parameters', text, re.M).group(1)
               .replace(',', ''))
  found = harness.count_parameters(path, VOCABULARY)
  assert found == stated
  model, size = os.path.basename(path).split('.')[:2]
  assert found == PARAMETERS[model].get(size, found)


def test_no_file_hides_one_of_t5():
  import t5
  t5_gin = os.path.join(os.path.dirname(t5.__file__), 'models', 'gin')
  clashes = [path for path in gin_files.list_gin_files()
             if os.path.exists(os.path.join(t5_gin, path))]
  assert not clashes


def test_swapping_a_model_is_swapping_one_file():
  for size in ('tiny', 'mini', 'small', 'base', 'large'):
    for model in PARAMETERS:
      assert f'models/{model}.{size}.gin' in gin_files.list_gin_files()
