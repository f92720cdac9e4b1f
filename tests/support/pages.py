"""The code blocks of a page of docs/, written and run as a reader does."""

import os
import pathlib
import re
import subprocess

import forked

ROOT = pathlib.Path(__file__).resolve().parents[2]


def blocks(page, heading):
  """Lists the code blocks under a heading, up to the next one.

  Args:
    page: its path in the repository.
    heading: the heading's words, of any level.

  Returns:
    A list of (language, text); the language is '' where the page has none.
  """
  text = (ROOT / page).read_text()
  sections = re.split(r'^##+ (.*)\n', text, flags=re.M)
  text = dict(zip(sections[1::2], sections[2::2]))[heading]
  return re.findall(r'^```(\w*)\n(.*?)^```$', text, re.M | re.S)


def write_files(found, folder):
  """Writes the blocks that begin with a comment that is a file's path.

  Args:
    found: a list of (language, text).
    folder: for the files.

  Returns:
    The paths, as the page has them.
  """
  paths = []
  for language, text in found:
    named = re.match(r'# (\S+\.\w+)\n', text)
    if language != 'sh' and named:
      path = pathlib.Path(folder) / named[1]
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
      paths.append(named[1])
  return paths


def run(found, folder, **environment):
  """Runs all blocks of shell in a folder, one after the other in one bash.

  Args:
    found: a list of (language, text).
    folder: where they run.
    **environment: variables besides those of this process.

  Returns:
    What was printed, errors too.
  """
  script = '\n'.join(text for language, text in found if language == 'sh')
  result = subprocess.run(
      ['bash', '-euo', 'pipefail', '-c', script], cwd=folder, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={
          **os.environ, **forked.environment(), **environment})
  assert result.returncode == 0, result.stdout
  return result.stdout
