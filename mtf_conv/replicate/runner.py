"""Runs jobs that are commands of t5_mesh_conv, and others like them."""

import os

from mtf_conv import t5_main
from mtf_conv.replicate import jobs


def run_jobs(root, all_jobs, at_once, threads, environment=None,
             main=t5_main.console_entry_point):
  """Runs jobs, see jobs.run.

  To be called before TensorFlow is imported: some of the environment is read
  then.

  Args:
    root: the folder of the records, held by jobs.lock.
    all_jobs: a list of jobs.Job.
    at_once: how many run at a time.
    threads: of each job.
    environment: environment variables that this process and each job gets.
    main: a function of a job's argv.

  Returns:
    A list of (job, reason) of those that failed.
  """
  os.environ.update(environment or {}, MTF_CONV_PROGRESS='0', **dict.fromkeys(
      ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'),
      str(threads)))
  t5_main.preload()
  return jobs.run(root, all_jobs, main, at_once)
