"""docs/extend.md's mixer has the properties that the page says it has."""

import importlib
import re

import pages
import pytest

from mtf_conv import testing

PAGE = 'docs/extend.md'


@pytest.fixture
def my_code(tmp_path, monkeypatch):
  """The page's Python files, to be imported."""
  for heading in ('Add a mixer', 'A smaller state'):
    pages.write_files(pages.blocks(PAGE, heading), tmp_path)
  monkeypatch.syspath_prepend(tmp_path / 'my_code')


def test_add_a_mixer(tmp_path):
  found = pages.blocks(PAGE, 'Add a mixer')
  assert pages.write_files(found, tmp_path) == [
      'my_code/longconv.py', 'my_gin/models/longconv.tiny.gin']
  gin = (tmp_path / 'my_gin' / 'models' / 'longconv.tiny.gin').read_text()
  assert len(re.findall(r'^\w.+', gin, re.M)) == 6
  printed = pages.run(found, tmp_path)
  shown, = [text for _, text in found if text.startswith('property ')]
  assert _without_numbers(printed) == _without_numbers(shown)


def _without_numbers(table):
  return [re.sub(r' +\d\.\de[+-]\d\d ', ' ', line)
          for line in table.splitlines()]


@pytest.mark.parametrize('module, cls', [
    ('longconv', 'LongConv'), ('runningconv', 'RunningConv')])
def test_state_and_history_are_right(my_code, module, cls):
  layer = getattr(importlib.import_module(module), cls)
  results = testing.check_mixer(layer, properties=[
      'first_part', 'incremental', 'prefixes', 'beams'])
  assert len(results) == 4
  assert not [result for result in results if not result.passed]
