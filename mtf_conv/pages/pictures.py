"""Draws the pictures of the documentation as SVG.

  python -m mtf_conv.pages.pictures     writes docs/pictures/*.svg

A picture is white, in dark mode too, and holds nothing but rectangles, circles,
lines and text. The text fits in DejaVu Sans, which is wider than Helvetica and
Arial.
"""

import argparse
import os
import pathlib
from xml.etree import ElementTree

_FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
_MONO = "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_INK, _FAINT = '#1f2933', '#66737f'
# Of a kind of box: what fills it, and its edge.
_PRODUCT = ('#dce8f7', '#3d6fa8')
_MIXING = ('#fde3c8', '#c4681a')
_GATE = ('#dcf0df', '#3c8a4e')
_PLAIN = ('#f1f3f5', '#8895a1')
_FRAME = ('#fbfcfd', '#c3cbd3')


class Picture:
  """An SVG of a given size in pixels."""

  def __init__(self, width, height, title):
    """Creates an empty white picture.

    Args:
      width: in pixels.
      height: in pixels.
      title: what it shows, for those who cannot see it.
    """
    self._svg = ElementTree.Element('svg', {
        'xmlns': 'http://www.w3.org/2000/svg', 'role': 'img',
        'width': str(width), 'height': str(height),
        'viewBox': f'0 0 {width} {height}', 'font-family': _FONT})
    ElementTree.SubElement(self._svg, 'title').text = title
    self._add('rect', width=width, height=height, rx=10, fill='#ffffff')

  def _add(self, tag, **attributes):
    return ElementTree.SubElement(self._svg, tag, {
        name.replace('_', '-'): format(value, 'g') if isinstance(
            value, (int, float)) else value
        for name, value in attributes.items()})

  def text(self, x, y, content, size=14, color=_INK, anchor='middle',
           bold=False, mono=False, italic=False, turned=False):
    """Writes a line of text whose middle is at the height y.

    Args:
      x: where it begins, has its middle or ends, as `anchor` says.
      y: the height of its middle.
      content: the text; the letter after a `~` stands below the line.
      size: of the font, in pixels.
      color: of the text.
      anchor: 'start', 'middle' or 'end'.
      bold: whether it is bold.
      mono: whether all letters are equally wide.
      italic: whether it is slanted.
      turned: whether it runs from the bottom up.
    """
    attributes = {}
    if bold:
      attributes['font_weight'] = 'bold'
    if italic:
      attributes['font_style'] = 'italic'
    if mono:
      attributes['font_family'] = _MONO
    if turned:
      attributes['transform'] = f'rotate(-90 {x:g} {y:g})'
    element = self._add(
        'text', x=x, y=y + 0.35 * size, font_size=size, fill=color,
        text_anchor=anchor, **attributes)
    element.text, *parts = content.split('~')
    for part in parts:  # 'W~I x' has its I below the line.
      for text, shift, part_size in (
          (part[0], 0.25 * size, 0.75 * size), (part[1:], -0.25 * size, size)):
        ElementTree.SubElement(element, 'tspan', {
            'dy': f'{shift:g}', 'font-size': f'{part_size:g}'}).text = text

  def box(self, x, y, width, height, kind, label='', size=14, radius=6,
          **style):
    """Draws a box from its upper left corner, a line of text in its middle."""
    fill, edge = kind
    self._add('rect', x=x, y=y, width=width, height=height, rx=radius,
              fill=fill, stroke=edge, stroke_width=1.3)
    if label:
      self.text(x + width / 2, y + height / 2, label, size, **style)

  def dot(self, x, y, label):
    """Draws an operation on two inputs: a circle with a sign in it."""
    self._add('circle', cx=x, cy=y, r=11, fill='#ffffff', stroke=_INK,
              stroke_width=1.3)
    arm = 5
    if label == '+':
      self.line([(x - arm, y), (x + arm, y)])
      self.line([(x, y - arm), (x, y + arm)])
    else:
      arm = 4
      self.line([(x - arm, y - arm), (x + arm, y + arm)])
      self.line([(x - arm, y + arm), (x + arm, y - arm)])

  def line(self, points, color=_INK, dashed=False):
    """Draws a line through points."""
    attributes = {'stroke_dasharray': '4 3'} if dashed else {}
    self._add('polyline', points=' '.join(f'{x:g},{y:g}' for x, y in points),
              fill='none', stroke=color, stroke_width=1.3, **attributes)

  def arrow(self, *points, color=_INK):
    """Draws a line through points that ends in an arrow head."""
    (x0, y0), (x1, y1) = points[-2:]
    length = ((x1 - x0)**2 + (y1 - y0)**2)**0.5
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    back = x1 - 8 * dx, y1 - 8 * dy
    self.line([*points[:-1], back], color)
    corners = [(x1, y1), (back[0] - 4 * dy, back[1] + 4 * dx),
               (back[0] + 4 * dy, back[1] - 4 * dx)]
    self.polygon(corners, (color, color))

  def polygon(self, points, kind):
    """Draws what lies between points."""
    fill, edge = kind
    self._add('polygon', points=' '.join(f'{x:g},{y:g}' for x, y in points),
              fill=fill, stroke=edge)

  def content(self):
    """Returns the SVG, a string."""
    self._svg.text = '\n'
    for element in self._svg:  # Not within a line of text, where it would show.
      element.tail = '\n'
    return ElementTree.tostring(self._svg, encoding='unicode') + '\n'


def _block_around(picture, x, title):
  """Draws what both blocks share; the mixer stands between y = 134 and 376."""
  middle = x + 190
  picture.text(middle, 28, title, 17, bold=True)
  picture.text(middle, 54, 'x', 16, italic=True)
  picture.arrow((middle, 64), (middle, 86))
  picture.box(middle - 60, 86, 120, 28, _PLAIN, 'RMS norm')
  picture.box(x + 24, 134, 332, 242, _FRAME)
  picture.text(x + 36, 148, 'mixer', 12, _FAINT, anchor='start')
  picture.line([(middle, 114), (middle, 152)])
  picture.arrow((middle, 366), (middle, 397))
  picture.dot(middle, 408, '+')
  picture.arrow((middle, 74), (x + 6, 74), (x + 6, 408), (middle - 11, 408))
  picture.arrow((middle, 419), (middle, 438))
  picture.box(middle - 110, 438, 220, 28, _PLAIN, 'norm, feed-forward, +')
  picture.arrow((middle, 466), (middle, 486))


def _reads(picture, x, y, name, read):
  """Draws a row of positions, those marked that position i = 7 reads."""
  picture.text(x, y, name, 13, _FAINT, anchor='end')
  for i in range(15):
    picture.box(x + 10 + 18 * i, y - 7, 14, 14,
                _MIXING if i in read else ('#ffffff', '#c3cbd3'), radius=2)
  picture.text(x + 17 + 18 * 7, y, 'i', 11, bold=True)


def block():
  """The block beside that of a Transformer (section 3.2.1)."""
  picture = Picture(800, 596, 'A block of T5 with self-attention, and the same '
                    'block with a gated convolution in its place')
  _block_around(picture, 10, 'T5: self-attention')
  picture.line([(94, 152), (306, 152)])
  for center, name in ((94, 'W~Q'), (200, 'W~K'), (306, 'W~V')):
    picture.arrow((center, 152), (center, 172))
    picture.box(center - 36, 172, 72, 30, _PRODUCT, name, 15)
  for center in (94, 200):
    picture.arrow((center, 202), (center, 226))
  picture.box(58, 226, 178, 32, _MIXING, 'softmax(Q · K + bias)')
  picture.arrow((147, 258), (147, 289), (189, 289))
  picture.arrow((306, 202), (306, 289), (211, 289))
  picture.dot(200, 289, '×')
  picture.arrow((200, 300), (200, 336))
  picture.box(164, 336, 72, 30, _PRODUCT, 'W~O', 15)

  _block_around(picture, 410, 'mtf_conv: gated convolution')
  picture.line([(530, 152), (670, 152)])
  for center, name in ((530, 'W~I'), (670, 'W~S')):
    picture.arrow((center, 152), (center, 172))
    picture.box(center - 36, 172, 72, 30, _PRODUCT, name, 15)
  picture.arrow((670, 202), (670, 217))
  picture.box(620, 217, 100, 28, _GATE, 'sigmoid')
  picture.arrow((670, 245), (670, 262), (611, 262))
  picture.arrow((530, 202), (530, 262), (589, 262))
  picture.dot(600, 262, '×')
  picture.arrow((600, 273), (600, 290))
  picture.box(511, 290, 178, 32, _MIXING, 'Conv, 7 taps')
  picture.arrow((600, 322), (600, 336))
  picture.box(564, 336, 72, 30, _PRODUCT, 'W~O', 15)

  for x, encoder, decoder in (
      (10, range(15), range(8)), (410, range(4, 11), range(1, 8))):
    picture.text(x + 190, 508, 'which positions the new x at i reads', 13,
                 _FAINT)
    _reads(picture, x + 82, 534, 'encoder', encoder)
    _reads(picture, x + 82, 560, 'decoder', decoder)
  return picture


def tensor():
  """One tensor's way through a block, with its shapes."""
  outer = ('[batch, length, d_model]', '[batch, d_model]')
  inner = ('[batch, length, heads, d_kv]', '[batch, heads, d_kv]')
  # A kind, an operation, and the shapes of what comes out: of a whole sequence
  # and of one step.
  rows = (
      (_PLAIN, 'x', *outer),
      (_PLAIN, 'RMS norm', *outer),
      (_PRODUCT, 'W~I x and W~S x', *inner),
      (_GATE, 'X~1 = W~I x · sigmoid(W~S x)', *inner),
      (_MIXING, 'X~2 = Conv(X~1)', *inner),
      (_PRODUCT, 'X~3 = W~O X~2', *outer),
      (_PLAIN, 'x + X~3', *outer),
  )
  notes = (
      ('filters, light and dilated', '[filters, taps]', '[filters, taps]'),
      ('filters, dynamic', '[batch, length, filters, taps]',
       '[batch, filters, taps]'),
      ('kept for the next step', '-', '[batch, conv_history, heads, d_kv]'),
  )
  picture = Picture(920, 186 + 48 * len(rows), "One tensor's way through a "
                    'block, with its shape after each operation')
  middle, first, second = 149, 304, 594
  picture.text(middle, 28, 'operation', 14, bold=True)
  picture.text(first, 28, 'a whole sequence', 14, bold=True, anchor='start')
  picture.text(second, 28, 'one step of decoding', 14, bold=True,
               anchor='start')
  y = 68
  for kind, label, sequence, step in rows:
    if y > 68:
      picture.arrow((middle, y - 32), (middle, y - 16))
    picture.box(24, y - 16, 250, 32, kind, label)
    picture.text(first, y, sequence, 14, anchor='start', mono=True)
    picture.text(second, y, step, 14, anchor='start', mono=True)
    y += 48
  picture.line([(24, y - 18), (896, y - 18)], _FRAME[1])
  for label, sequence, step in notes:
    picture.text(24, y + 4, label, 14, anchor='start')
    picture.text(first, y + 4, sequence, 14, anchor='start', mono=True)
    picture.text(second, y + 4, step, 14, anchor='start', mono=True)
    y += 24
  picture.text(24, y + 12, 'Base size: d_model = 768, heads = 12, d_kv = 64, '
               'filters = 2, taps = 7, conv_history = 6.', 13, _FAINT,
               anchor='start')
  return picture


def data():
  """The data's way from raw text to the report."""
  picture = Picture(898, 328, "The data's way from raw text to the report")

  def stage(x, y, kind, label, *details, width=190):
    picture.box(x, y, width, 112, kind)
    picture.text(x + width / 2, y + 24, label, 15, bold=True)
    for line, detail in enumerate(details):
      picture.text(x + width / 2, y + 52 + 21 * line, detail, 13)

  stage(24, 28, _PLAIN, 'raw text', 'TFDS downloads,',
        '.txt, .jsonl, .tokens')
  stage(244, 28, _PLAIN, 'prepared data', 'mtf_conv prepare',
        'checks and writes it', "in TFDS's format")
  stage(464, 28, _GATE, 'task', 'tasks/: rows become',
        "'inputs', 'targets',", 'and metrics')
  stage(684, 28, _GATE, 'input pipeline', "T5's: tokenize, corrupt",
        'spans, cut, pack,', 'batch')
  for x in (214, 434, 654):
    picture.arrow((x, 84), (x + 30, 84))
  picture.arrow((779, 140), (779, 190))
  stage(464, 190, _MIXING, 'model', 'embedding, blocks and loss in Mesh',
        'TensorFlow, which splits them over devices;',
        'T5 trains them and decodes with them', width=410)
  stage(244, 190, _PRODUCT, 'model_dir', 'checkpoints, scores,',
        'predictions,', 'record.json')
  stage(24, 190, _PLAIN, 'report', 'mtf_conv report:',
        'tables, curves, and', "the paper's numbers")
  picture.arrow((464, 246), (434, 246))
  picture.arrow((244, 246), (214, 246))
  return picture


# The order of imports, from top to bottom: each row imports only what stands
# below it, and within a row what stands to its right.
ROOMS = (
    ('cli', 'commands', 'pages'),
    ('report', 'replicate', 'prepare'),
    ('exchange', 'answer', 'testing', 'measure', 'release'),
    ('t5_main', 't5_patches', 'evaluation', 'training', 'held_out',
     'model_dir'),
    ('tasks', 'datasets', 'hardware', 'vocabulary'),
    ('released', 'layers', 'mixer'),
    ('loss', 'attention', 'embedding'),
    ('chunked_loss', 'norm', 'optimizer'),
    ('conv', 'conv_lowerings'),
    ('compat', 'base'),
)
_ROWS = ('what is typed', "the paper's grid", 'counted, checked, asked',
         "T5's main, and its runs", 'what a run is made of', 'what gin names',
         "in place of T5's", 'the same',
         'the operation', 'what all use')


def house():
  """The rooms of the package, and the order in which they import."""
  picture = Picture(860, 62 + 48 * len(ROOMS),
                    'The modules and folders of mtf_conv, in the order of '
                    'imports')
  kinds = (_PLAIN, _PLAIN, _GATE, _GATE, _PRODUCT, _MIXING, _PRODUCT,
           _PRODUCT, _MIXING, _PLAIN)
  for row, (rooms, what, kind) in enumerate(zip(ROOMS, _ROWS, kinds)):
    y = 28 + 48 * row
    picture.text(24, y + 16, what, 14, anchor='start')
    width = (560 - 10 * (len(rooms) - 1)) / len(rooms)
    for column, room in enumerate(rooms):
      picture.box(220 + column * (width + 10), y, width, 34, kind, room, 13)
  bottom = 28 + 48 * len(ROOMS) - 14
  picture.arrow((820, 28), (820, bottom))
  picture.text(806, bottom + 24, 'imports', 13, _FAINT)
  return picture


PICTURES = {'block': block, 'tensor': tensor, 'data': data, 'house': house}


def main():
  """Writes the pictures."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('folder', nargs='?', default='docs/pictures')
  folder = pathlib.Path(parser.parse_args().folder)
  os.makedirs(folder, exist_ok=True)
  for name, draw in PICTURES.items():
    (folder / f'{name}.svg').write_text(draw().content(), encoding='utf-8')


if __name__ == '__main__':
  main()
