"""The pictures, the citation and the API reference."""

import ast
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import pages
import pytest
import yaml
from matplotlib import font_manager, textpath

import mtf_conv
from mtf_conv.pages import pictures

ROOT = pages.ROOT
SVG = '{http://www.w3.org/2000/svg}'


@pytest.mark.parametrize('name', pictures.PICTURES)
def test_pictures_are_those_of_the_script(name):
  path = ROOT / 'docs' / 'pictures' / f'{name}.svg'
  assert path.read_text('utf-8') == pictures.PICTURES[name]().content(), (
      'run python -m mtf_conv.pages.pictures')
  used = (ROOT / 'README.md').read_text() + (
      ROOT / 'docs' / 'architecture.md').read_text()
  assert f'pictures/{name}.svg' in used


def _texts(svg):
  """Lists (left, right, y, text) of an SVG's lines of text in DejaVu Sans."""
  found = []
  for element in svg.iter(f'{SVG}text'):
    text = ''.join(element.itertext())
    font = font_manager.FontProperties(
        family='DejaVu Sans Mono' if 'mono' in element.get('font-family', '')
        else 'DejaVu Sans', weight=element.get('font-weight', 'normal'))
    width = textpath.TextPath(
        (0, 0), text, float(element.get('font-size')),
        prop=font).get_extents().width
    left = float(element.get('x')) - width * {
        'start': 0, 'middle': 0.5, 'end': 1}[element.get('text-anchor')]
    if element.get('transform') is None:  # It is not turned.
      found.append((left, left + width, float(element.get('y')), text))
  return found


@pytest.mark.parametrize('name', pictures.PICTURES)
def test_text_of_pictures_overlaps_nothing(name):
  svg = ElementTree.fromstring(pictures.PICTURES[name]().content())
  texts = _texts(svg)
  assert len(texts) > 10
  for left, right, y, text in texts:
    assert 0 < left and right < float(svg.get('width')), text
    for other_left, other_right, other_y, other in texts:
      assert (text, y) == (other, other_y) or abs(y - other_y) > 12 or (
          right < other_left or other_right < left), (text, other)
  # A text that begins in a box ends in it.
  for box in svg.iter(f'{SVG}rect'):
    x, y, width, height = (float(box.get(name, 0)) for name in (
        'x', 'y', 'width', 'height'))
    for left, right, baseline, text in texts:
      middle = (left + right) / 2
      if x < middle < x + width and y < baseline < y + height:
        assert x < left and right < x + width, text


def test_links_of_pages_lead_somewhere():
  for page in [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
               *(ROOT / 'docs').rglob('*.md')]:
    text = re.sub(r'(?ms)^```.*?^```$', '', page.read_text())
    for target in re.findall(r'\]\(([^)#:]+)\)', text):
      assert (page.parent / target).exists(), f'{page}: {target}'


def test_citation():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  assert citation['version'] == mtf_conv.__version__
  assert citation['cff-version'] == '1.2.0'
  # What the format requires.
  for cited in (citation, citation['preferred-citation']):
    assert cited['title'] and cited['authors'] and cited['type']
  assert citation['message']


def _public_names(path):
  """The functions and classes that a module defines without `_`."""
  return [node.name for node in ast.parse(path.read_text()).body
          if isinstance(node, (ast.ClassDef, ast.FunctionDef))
          and not node.name.startswith('_')]


def test_api_reference_has_every_public_name(tmp_path):
  command, = re.findall(r'^.*python -m pdoc .*$',
                        (ROOT / 'CONTRIBUTING.md').read_text(), re.M)
  result = subprocess.run(
      ['bash', '-c', command.replace('build/api', str(tmp_path))], text=True,
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      env={**os.environ,
           'PATH': f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'})
  assert result.returncode == 0 and result.stdout == ''
  checked = set()
  for folder in ('mtf_conv', 'tasks'):
    for path in (ROOT / folder).rglob('*.py'):
      module = path.relative_to(ROOT).with_suffix('')
      if module.name == '__init__':
        module = module.parent
      if folder == 'tasks':
        module = 'mtf_conv' / module
      package = ROOT / module.parent / '__init__.py'
      if package.exists() and '__all__' in package.read_text():
        continue  # Its page has all that is public.
      shown = set(re.findall(
          r' id="(\w+)"', (tmp_path / f'{module}.html').read_text()))
      names = _public_names(path)
      assert set(names) <= shown, module
      checked.update(names)
  assert {'LightConv', 'local_conv', 'Dataset', 'train_model'} <= checked
