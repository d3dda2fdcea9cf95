"""The packages of the distribution: an installed package holds the experiments, too."""

import setuptools

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=['ssl_extract*']),
        'ssl_extract.experiments',
        'ssl_extract.experiments.pretrained',
    ],
    package_dir={'ssl_extract.experiments': 'experiments'},
)
